//! `Source` and `Vendor` -> `/home/mastodon` in a build root: a tree of the image's distribution with compilers, which never becomes
//! part of the image. No step has a network.
//!
//! Layout, as in the installation guide of that time and what differs from it:
//!
//! | Path | Owner | Content |
//! | --- | --- | --- |
//! | `live/` | mastodon | the source, `vendor/bundle`, `node_modules`, compiled assets |
//! | `.rbenv/` | mastodon | rbenv, ruby-build, Ruby; the units start `.rbenv/shims/bundle` |
//! | `.node/` | root | Node and yarn. The guide takes Node from a package; no distribution has these releases any more |
//! | `.local/bin/` | root | static ffmpeg and ffprobe where the distribution has none |
//! | `.layer.toml` | root | what this is, for `package` |
//!
//! `.node` and `.local` are root's, so that the application does not change them by accident; links in `/usr/bin`
//! (`overlays/mastodon-node`, `overlays/mastodon-ffmpeg`) lead there. It is no boundary: the home itself is the application's, so root
//! starts nothing by these links.

use std::path::Path;

use anyhow::Result;

use super::source::Source;
use super::tags::Tag;
use super::vendor::{PLACE, Vendor};
use super::{Base, HOME};
use crate::app::MASTODON_UID;
use crate::context::Context;
use crate::error::Fault;
use crate::sandbox::{Network, Sandbox};

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    title: &'static str,
    /// As root of the tree instead of as `mastodon`.
    root: bool,
    script: String,
}

/// Builds the layer in the sandbox; afterwards `/home/mastodon` of its tree is the layer.
pub fn layer(
    tag: &Tag,
    base: Base,
    source: &Source,
    vendor: &Vendor,
    sandbox: &Sandbox<'_>,
    context: &Context,
) -> Result<()> {
    context.reporter.doing("copying the sources into the build root");
    sandbox.copy_in(source.folder(), &format!("{HOME}/live"), MASTODON_UID)?;
    sandbox.copy_in(vendor.folder(), PLACE, MASTODON_UID)?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    for step in steps(tag, base, source.commit().unwrap_or_default(), jobs) {
        context.reporter.doing(step.title);
        let result = if step.root {
            sandbox.run(&["sh", "-ec", &step.script], Network::None)
        } else {
            sandbox.run_as(MASTODON_UID, HOME, &step.script)
        };
        result.map_err(|error| explain(tag, step.title, error, context.log.path()))?;
    }
    Ok(())
}

/// Dummies: assets are compiled with the production configuration, which refuses to load without secrets. None of them is kept.
const SECRETS: &str = "SECRET_KEY_BASE=precompile OTP_SECRET=precompile PAPERCLIP_SECRET=precompile LOCAL_DOMAIN=localhost LOCAL_HTTPS=true";

fn steps(tag: &Tag, base: Base, commit: &str, jobs: usize) -> Vec<Step> {
    // Everything that the tools keep for themselves goes into a home outside the layer.
    let environment = format!(
        "export HOME={PLACE}/home RBENV_ROOT={HOME}/.rbenv TMPDIR={PLACE}/tmp MAKE_OPTS=-j{jobs} MAKEFLAGS=-j{jobs} JOBS={jobs}\n\
         export PATH={HOME}/.rbenv/shims:{HOME}/.rbenv/bin:{HOME}/.node/bin:/usr/local/bin:/usr/bin:/bin\n\
         export npm_config_nodedir={HOME}/.node npm_config_offline=true GIT_TERMINAL_PROMPT=0\n"
    );
    let user = |title, script: String| Step { title, root: false, script: format!("{environment}{script}") };
    let root = |title, script: String| Step { title, root: true, script };
    let (ruby, node) = (&tag.ruby.version, &tag.node);
    let mut steps = vec![root("preparing the build root", prepare(tag, base))];
    steps.push(user(
        "laying out rbenv",
        format!(
            "cp -r {PLACE}/rbenv {HOME}/.rbenv\n\
             if [ -d {PLACE}/live ]; then cp -r {PLACE}/live/. {HOME}/live/; fi\n\
             cat > {HOME}/.bash_profile <<'END'\n\
             export PATH=\"$HOME/.rbenv/bin:$HOME/.node/bin:$PATH\"\n\
             eval \"$(rbenv init -)\"\n\
             END"
        ),
    ));
    steps.push(user(
        "compiling Ruby",
        format!(
            "export RUBY_BUILD_CACHE_PATH={PLACE}/ruby RUBY_BUILD_SKIP_MIRROR=1 RUBY_CONFIGURE_OPTS=--disable-install-doc\n\
             rbenv install --verbose {ruby}\nrbenv global {ruby}\nrbenv rehash"
        ),
    ));
    if tag.bundler.is_some() {
        // Its gem file must have a gem's name for `gem`; `--force` replaces the programs of a Bundler that came with Ruby.
        let install =
            format!("gem install --local --force --no-document {PLACE}/tools/bundler.gem\nrbenv rehash");
        steps.push(user("installing Bundler", install));
    }
    steps.push(user(
        "compiling gems",
        format!(
            "cd {HOME}/live\nmkdir -p vendor/cache\ncp {PLACE}/gems/*.gem vendor/cache/\n\
             bundle install --local --deployment --without development test --jobs {jobs}"
        ),
    ));
    steps.push(user(
        "installing npm packages",
        format!("cd {HOME}/live\nyarn install --pure-lockfile --offline --non-interactive --no-progress"),
    ));
    steps.push(user(
        "compiling assets",
        format!("cd {HOME}/live\nexport RAILS_ENV=production NODE_ENV=production {SECRETS}\nbundle exec rails assets:precompile"),
    ));
    steps.push(user("removing what only the build needed", clean()));
    steps.push(user(
        "checking the layer",
        format!(
            "say() {{ echo \"the layer is not whole: $1\" >&2; exit 1; }}\n\
             cd {HOME}/live\n\
             test \"$(ruby -e 'print RUBY_VERSION')\" = {ruby} || say \"Ruby {ruby}\"\n\
             test \"$(node -v)\" = v{node} || say \"Node {node}\"\n\
             bundle check || say gems\n\
             test -s public/packs/manifest.json || say public/packs/manifest.json\n\
             ls public/assets/.sprockets-manifest-*.json public/assets/manifest-*.json 2>/dev/null | grep -q . || say public/assets\n\
             for folder in tmp log public/system; do test -d $folder || say $folder; done"
        ),
    ));
    steps.push(root("sealing the layer", seal(tag, base, commit)));
    steps
}

/// The user, Node, yarn and the static programs.
fn prepare(tag: &Tag, base: Base) -> String {
    let id = MASTODON_UID;
    let mut script = format!(
        "grep -q ^mastodon: /etc/group || echo mastodon:x:{id}: >> /etc/group\n\
         grep -q ^mastodon: /etc/passwd || echo mastodon:x:{id}:{id}::{HOME}:/bin/bash >> /etc/passwd\n\
         install -d -o {id} -g {id} {HOME} {PLACE}/tmp {PLACE}/home\n\
         chmod 1777 /tmp\n\
         install -d {HOME}/.node {HOME}/.node/lib/node_modules/yarn\n\
         tar -xJf {PLACE}/tools/node.tar.xz -C {HOME}/.node --strip-components=1 --no-same-owner\n\
         tar -xzf {PLACE}/tools/yarn.tgz -C {HOME}/.node/lib/node_modules/yarn --strip-components=1 --no-same-owner\n\
         ln -sf ../lib/node_modules/yarn/bin/yarn.js {HOME}/.node/bin/yarn\n\
         chmod 755 {HOME}/.node/lib/node_modules/yarn/bin/yarn.js\n"
    );
    if tag.python2 {
        script.push_str(
            "python2 -c '' 2>/dev/null || python2.7 -c '' 2>/dev/null || { echo 'this root has no Python 2' >&2; exit 1; }\n",
        );
    }
    if base.lacks_ffmpeg() {
        script.push_str(&format!("install -d {HOME}/.local {HOME}/.local/bin\n"));
        for program in ["ffmpeg", "ffprobe"].into_iter().filter(|program| *program == "ffmpeg" || tag.ffprobe)
        {
            script.push_str(&format!(
                "tar -xzf {PLACE}/tools/{program}.tgz -C {HOME}/.local/bin --strip-components=1 --no-same-owner package/{program}\n\
                 chmod 755 {HOME}/.local/bin/{program}\n"
            ));
        }
    }
    script
}

/// What compiling leaves behind. Repositories of gems stay: Bundler looks for them.
fn clean() -> String {
    format!(
        "cd {HOME}/live\n\
         rm -rf vendor/cache node_modules/.cache tmp/* log/* .git\n\
         rm -rf vendor/bundle/ruby/*/cache/*.gem {HOME}/.rbenv/versions/*/lib/ruby/gems/*/cache\n\
         rm -rf {HOME}/.rbenv/versions/*/share/doc {HOME}/.rbenv/versions/*/share/ri\n\
         find vendor/bundle {HOME}/.rbenv/versions -type f \\( -name '*.o' -o -name mkmf.log -o -name gem_make.out \\) -delete\n\
         find node_modules -type d \\( -name obj.target -o -name .deps \\) -path '*/build/*' -prune -exec rm -rf '{{}}' +\n\
         mkdir -p public/system tmp/pids tmp/cache log"
    )
}

/// Owners of what root may start, the record, and the home's mode.
fn seal(tag: &Tag, base: Base, commit: &str) -> String {
    let (name, ruby, node, base) = (&tag.tag, &tag.ruby.version, &tag.node, base.name());
    format!(
        "rm -rf {HOME}/.node/include {HOME}/.node/share {HOME}/.node/*.md\n\
         for folder in .node .local; do test ! -d {HOME}/$folder || chown -R 0:0 {HOME}/$folder; done\n\
         glibc=$(getconf GNU_LIBC_VERSION)\n\
         cat > {HOME}/.layer.toml <<END\n\
         schema = 1\ntag = \"{name}\"\ncommit = \"{commit}\"\nbase = \"{base}\"\nglibc = \"${{glibc#glibc }}\"\nruby = \"{ruby}\"\nnode = \"{node}\"\n\
         END\n\
         chmod 644 {HOME}/.layer.toml\nchmod 711 {HOME}"
    )
}

/// The one message for a step that failed, with what can be done where the reason is known.
fn explain(tag: &Tag, title: &str, error: anyhow::Error, log: &Path) -> anyhow::Error {
    let text = error.to_string();
    let has = |needles: &[&str]| needles.iter().any(|needle| text.contains(needle));
    let line = |needle: &str| {
        let found = text.lines().find(|line| line.contains(needle)).unwrap_or_default();
        found.trim().trim_start_matches("| ").to_owned()
    };
    let name = &tag.tag;
    let fault = if let Some(needle) =
        ["Could not find ", "could not find ", "has removed it", "have removed it"]
            .into_iter()
            .find(|needle| text.contains(needle))
    {
        Fault::environment(format!("Bundler lacks a gem of {name}: {}", line(needle)))
            .hint(format!("name a release that can be had: `[[gem]]` in `images/mastodon/tags/{name}.toml`"))
    } else if has(&["has no Python 2", "Can't find Python executable"]) {
        Fault::user(format!("{name} compiles node-sass with Python 2, which this base does not have"))
            .hint("use a CentOS 7 base, a tag from v2.9 on, or a layer that was built elsewhere (--app FILE)")
    } else if has(&["No space left on device", "ENOSPC"]) {
        Fault::environment(format!("no space left while {title}"))
            .hint("free some, run `imgbuild clean`, or use another folder (IMGBUILD_STORE)")
    } else if has(&["JavaScript heap out of memory", "Cannot allocate memory", "signal: 9", "Killed"]) {
        Fault::environment(format!("not enough memory while {title}"))
            .hint("building takes 1.5 GiB of free memory")
    } else if has(&["in our cache", "ENOTCACHED"]) {
        Fault::user(format!(
            "`yarn.lock` of {name} does not go with its `package.json`: {}",
            line("in our cache")
        ))
        .hint("another source: --source")
    } else {
        return error.context(format!("{title} for Mastodon {name}"));
    };
    fault.hint(format!("the whole log is in `{}`", log.display())).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mastodon::tags::Table;

    fn tag(name: &str) -> Tag {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/mastodon");
        Table::load(&folder).unwrap().tag(name).unwrap().clone()
    }

    #[test]
    fn steps_follow_the_tag_and_the_base() {
        let scripts = |name: &str, base: Base| {
            let steps = steps(&tag(name), base, "abc", 2);
            steps.iter().map(|step| step.script.clone()).collect::<Vec<_>>().join("\n")
        };
        let first = scripts("v1.6.1", Base::El7);
        assert!(
            first.contains("rbenv install --verbose 2.4.1")
                && first.contains("bundler.gem")
                && first.contains("python2")
        );
        assert!(first.contains("package/ffmpeg") && !first.contains("package/ffprobe"));
        let last = scripts("v3.4.1", Base::Debian);
        assert!(!last.contains("bundler.gem") && !last.contains("python2") && !last.contains("package/ff"));
        assert!(last.contains("glibc = \"${glibc#glibc }\""), "{last}");
    }

    #[test]
    fn scripts_are_shell() {
        let temp = tempfile::tempdir().unwrap();
        let log = crate::exec::Log::create(&temp.path().join("log")).unwrap();
        for (name, base) in [("v1.6.1", Base::El7), ("v3.4.1", Base::Debian)] {
            for step in steps(&tag(name), base, "", 2) {
                crate::exec::Run::new(&log, "sh").args(["-n", "-c", &step.script]).run().unwrap();
            }
        }
    }

    #[test]
    fn known_reasons_come_with_a_remedy() {
        let check = |text: &str, expected: &str, code: u8| {
            let error =
                explain(&tag("v1.6.1"), "compiling gems", Fault::environment(text).into(), Path::new("log"));
            let shown = crate::error::render(&error);
            assert!(shown.contains(expected) && crate::error::exit_code(&error) == code, "{shown}");
        };
        check(
            "`sh` ended\n  | Could not find mimemagic-0.3.2 in any of the sources",
            "lacks a gem of v1.6.1: Could not find mimemagic-0.3.2",
            2,
        );
        check("  | Your bundle is locked to x (1), but the author of x has removed it.", "[[gem]]", 2);
        check("  | this root has no Python 2", "CentOS 7 base", 1);
        check("  | cc1plus: fatal error: Killed signal", "1.5 GiB", 2);
        check("  | strange", "compiling gems for Mastodon v1.6.1", 2);
    }
}
