// A form is sent once: a slow machine invites a second click.
document.addEventListener('submit', (event) => {
  for (const button of event.target.querySelectorAll('[type=submit]')) setTimeout(() => { button.disabled = true; });
});
addEventListener('pageshow', () => {
  for (const button of document.querySelectorAll('[type=submit]')) button.disabled = false;
});
