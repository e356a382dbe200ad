'use strict';
(function () {
  document.documentElement.classList.add('scripted');
  const map = document.querySelector('.map');
  const crumbs = document.querySelector('.crumbs');
  const still = Array.from(crumbs.childNodes);
  const tip = document.createElement('div');
  tip.className = 'tip';
  tip.hidden = true;
  document.body.append(tip);

  // The browser's own tooltips wait; ours follow the pointer.
  document.querySelectorAll('.cell[title], .bar[title]').forEach(function (cell) {
    cell.dataset.tip = cell.title;
    cell.setAttribute('aria-label', cell.title);
    cell.removeAttribute('title');
  });
  document.addEventListener('pointermove', function (event) {
    const cell = event.target.closest ? event.target.closest('[data-tip]') : null;
    tip.hidden = !cell || event.pointerType === 'touch';
    if (tip.hidden) return;
    tip.textContent = cell.dataset.tip;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 18;
    tip.style.left = Math.max(8, left) + 'px';
    tip.style.top = (below + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : below) + 'px';
  });

  function button(text, action) {
    const made = document.createElement('button');
    made.type = 'button';
    made.textContent = text;
    made.addEventListener('click', action);
    return made;
  }
  // A folder fills the map when it and all around it do.
  function zoom(cell) {
    tip.hidden = true;
    map.querySelectorAll('.open').forEach(function (open) { open.classList.remove('open', 'last'); });
    map.classList.toggle('zoomed', Boolean(cell));
    const path = [];
    for (let at = cell; at; at = at.parentElement.closest('.cell')) {
      at.classList.add('open');
      path.unshift(at);
    }
    if (!cell) { crumbs.replaceChildren.apply(crumbs, still); return; }
    cell.classList.add('last');
    crumbs.replaceChildren(button('all', function () { zoom(null); }));
    path.forEach(function (at, index) {
      const name = at.dataset.path.split('/').pop();
      crumbs.append(' / ', index + 1 === path.length ? name : button(name, function () { zoom(at); }));
    });
    const words = cell.dataset.tip.split('\n')[1];
    const size = document.createElement('span');
    size.className = 'muted';
    size.textContent = '\u00a0\u00a0' + words;
    crumbs.append(size);
  }
  map.addEventListener('click', function (event) {
    let cell = event.target.closest('.box');
    // In a folder that fills the map, the next one on the way to the pointer.
    while (cell && !cell.classList.contains('open')) {
      const outer = cell.parentElement.closest('.cell');
      if (!outer || outer.classList.contains('open')) break;
      cell = outer;
    }
    if (cell && !cell.classList.contains('open')) zoom(cell);
  });
  map.addEventListener('keydown', function (event) {
    if (event.key === 'Enter' && event.target.classList.contains('box')) zoom(event.target);
  });
  document.addEventListener('keydown', function (event) {
    if (event.key !== 'Escape') return;
    const last = map.querySelector('.last');
    if (last) zoom(last.parentElement.closest('.cell'));
  });

  document.querySelectorAll('table.sortable').forEach(function (table) {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const find = document.createElement('input');
    find.type = 'search';
    find.className = 'find';
    find.placeholder = 'Find a package';
    find.setAttribute('aria-label', find.placeholder);
    find.addEventListener('input', function () {
      const wanted = find.value.trim().toLowerCase();
      rows.forEach(function (row) { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
    });
    table.parentElement.before(find);
    const heads = Array.from(table.querySelectorAll('th'));
    heads.forEach(function (head, column) {
      if (!head.dataset.sort) return;
      const numbers = head.dataset.sort === 'n';
      if (numbers) head.setAttribute('aria-sort', 'descending');
      const text = head.textContent;
      head.replaceChildren(button(text, function () {
        const down = head.getAttribute('aria-sort') ? head.getAttribute('aria-sort') === 'ascending' : numbers;
        heads.forEach(function (other) { other.removeAttribute('aria-sort'); });
        head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
        rows.sort(function (a, b) {
          const x = a.cells[column];
          const y = b.cells[column];
          const order = numbers ? x.dataset.n - y.dataset.n : x.textContent.localeCompare(y.textContent);
          return down ? -order : order;
        });
        body.append.apply(body, rows);
      }));
    });
  });
})();
