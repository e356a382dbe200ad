//! Tests of the solver: situations that CentOS 7 really has, messages, and random universes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::repo::solve::{Repository, Universe, Unresolved, Wanted, solve};
use crate::repo::{Candidate, Comparison, Relation};
use crate::rpm::Nevra;
use crate::rpm::evr::Evr;

/// `name`, or `name op evr`.
fn relation(text: &str) -> Relation {
    match text.split(' ').collect::<Vec<_>>().as_slice() {
        [name, op, evr] if !name.starts_with('(') => {
            let flags = match *op {
                "<" => "LT",
                "<=" => "LE",
                "=" => "EQ",
                ">=" => "GE",
                _ => "GT",
            };
            let comparison = Comparison::parse(flags).unwrap();
            Relation { name: (*name).to_owned(), condition: Some((comparison, Evr::parse(evr))) }
        }
        _ => Relation { name: text.to_owned(), condition: None },
    }
}

/// `name evr arch`, then lines such as `needs: a, b >= 2`. Its digest is its text, its source its name unless it says otherwise.
fn package(text: &str) -> Candidate {
    let mut lines = text.split(';').map(str::trim);
    let head: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let nevra = Nevra { name: head[0].to_owned(), evr: Evr::parse(head[1]), arch: head[2].to_owned() };
    let mut candidate = Candidate {
        location: format!("{nevra}.rpm"),
        sha256: nevra.to_string(),
        source: format!("{}-{}.src.rpm", head[0], head[1]),
        nevra,
        repository: String::new(),
        size: 1,
        installed_size: 1,
        build_time: 0,
        provides: Vec::new(),
        requires: Vec::new(),
        conflicts: Vec::new(),
        obsoletes: Vec::new(),
        files: Vec::new(),
    };
    for line in lines.filter(|line| !line.is_empty()) {
        let (key, values) = line.split_once(": ").unwrap();
        let relations = || values.split(", ").map(relation).collect();
        match key {
            "gives" => candidate.provides = relations(),
            "needs" => candidate.requires = relations(),
            "hates" => candidate.conflicts = relations(),
            "replaces" => candidate.obsoletes = relations(),
            "has" => candidate.files = values.split(", ").map(str::to_owned).collect(),
            "of" => candidate.source = values.to_owned(),
            _ => panic!("{key}"),
        }
    }
    candidate
}

fn repository(name: &str, packages: &[&str]) -> Repository {
    let candidates =
        packages.iter().map(|text| Candidate { repository: name.to_owned(), ..package(text) }).collect();
    Repository { name: name.to_owned(), candidates, only: None }
}

fn wanted(names: &[&str]) -> Vec<Wanted> {
    names.iter().map(|name| Wanted { name: (*name).to_owned(), repositories: Vec::new() }).collect()
}

/// The closure as `nevra` or `nevra@repository`, or the problems.
fn closure(repositories: Vec<Repository>, names: &[&str]) -> Vec<String> {
    closure_with(repositories, &wanted(names), &[])
}

fn closure_with(repositories: Vec<Repository>, wanted: &[Wanted], files: &[(&str, &str)]) -> Vec<String> {
    let several = repositories.len() > 1;
    let universe = Universe::new(repositories);
    let mut asked = BTreeSet::new();
    let answer = solve(&universe, wanted, &mut |wanted| {
        let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in wanted {
            assert!(asked.insert(file.clone()), "{file} is asked for twice");
            let packages =
                files.iter().filter(|(name, _)| name == file).map(|(_, package)| (*package).to_owned());
            owners.insert(file.clone(), packages.collect());
        }
        Ok(owners)
    });
    match answer {
        Ok(closure) if several => closure.iter().map(|c| format!("{}@{}", c.nevra, c.repository)).collect(),
        Ok(closure) => closure.iter().map(|candidate| candidate.nevra.to_string()).collect(),
        Err(Unresolved::Problems(problems)) => problems,
        Err(Unresolved::FileLists(error)) => panic!("{error}"),
    }
}

fn base(packages: &[&str]) -> Vec<Repository> {
    vec![repository("base", packages)]
}

#[test]
fn a_cycle_a_virtual_version_an_epoch_and_a_file_of_the_file_lists() {
    let packages = [
        "glibc 2.17-317.el7 x86_64; needs: glibc-common = 2.17-317.el7; gives: libc.so.6()(64bit)",
        "glibc 2.17-317.el7 i686; gives: libc.so.6, libonly32",
        "glibc-common 2.17-317.el7 x86_64; needs: glibc = 2.17-317.el7, tzdata >= 2003a, rpmlib(CompressedFileNames) <= 3.0.4-1",
        "tzdata 2020d-2.el7 noarch",
        "yum 3.4.3-168.el7 noarch; needs: python(abi) = 2.7, /usr/bin/python, /usr/sbin/useradd, bind-libs >= 32:9.11",
        "python 2.7.5-89.el7 x86_64; gives: python(abi) = 2.7; needs: libc.so.6()(64bit); has: /usr/bin/python",
        "python34 3.4.10-1.el7 x86_64; gives: python(abi) = 3.4",
        "shadow-utils 2:4.6-5.el7 x86_64",
        "bind-libs 32:9.11.4-26.P2.el7 x86_64",
    ];
    assert_eq!(
        closure_with(
            base(&packages),
            &wanted(&["yum"]),
            &[("/usr/sbin/useradd", "shadow-utils-2:4.6-5.el7.x86_64")]
        ),
        [
            "bind-libs-32:9.11.4-26.P2.el7.x86_64",
            "glibc-2.17-317.el7.x86_64",
            "glibc-common-2.17-317.el7.x86_64",
            "python-2.7.5-89.el7.x86_64",
            "shadow-utils-2:4.6-5.el7.x86_64",
            "tzdata-2020d-2.el7.noarch",
            "yum-3.4.3-168.el7.noarch",
        ]
    );
}

#[test]
fn the_newest_build_wins_unless_one_is_named() {
    let packages = [
        "kernel 3.10.0-1160.el7 x86_64; needs: linux-firmware",
        "kernel 3.10.0-1160.119.1.el7 x86_64; needs: linux-firmware",
        "linux-firmware 20200421-79.git78c0348.el7 noarch",
        "linux-firmware 20200421-80.git78c0348.el7_9 noarch",
    ];
    let firmware = "linux-firmware-20200421-80.git78c0348.el7_9.noarch";
    assert_eq!(closure(base(&packages), &["kernel"]), ["kernel-3.10.0-1160.119.1.el7.x86_64", firmware]);
    assert_eq!(
        closure(base(&packages), &["kernel-3.10.0-1160.el7"]),
        ["kernel-3.10.0-1160.el7.x86_64", firmware]
    );
    assert_eq!(
        closure(base(&packages), &["linux-firmware-20200421-79.git78c0348.el7"]),
        ["linux-firmware-20200421-79.git78c0348.el7.noarch"]
    );
    assert_eq!(closure(base(&packages), &["linux-firmware-0:20200421"]), [firmware]);
    assert_eq!(
        closure(base(&packages), &["kernel", "kernel-3.10.0-1160.el7"]),
        [
            "`kernel-3.10.0-1160.119.1.el7.x86_64` (base) and `kernel-3.10.0-1160.el7.x86_64` (base) are both asked for: only one \
          build of a package can be installed"
        ]
    );
}

#[test]
fn a_pinned_build_brings_its_older_family() {
    let packages = [
        "glibc 2-1 x86_64; needs: glibc-common = 2-1",
        "glibc 2-2 x86_64; needs: glibc-common = 2-2",
        "glibc-common 2-1 x86_64",
        "glibc-common 2-2 x86_64",
        "aaa 1-1 x86_64; needs: glibc-common, middle",
        "middle 1-1 x86_64; needs: late = 1",
        "late 1-1 x86_64; needs: glibc-common = 2-1",
    ];
    assert_eq!(closure(base(&packages), &["glibc-2-1"]), ["glibc-2-1.x86_64", "glibc-common-2-1.x86_64"]);
    // Here the newest glibc-common is chosen first and only later found to be in the way.
    let found = closure(base(&packages), &["aaa", "late"]);
    assert!(found.contains(&"glibc-common-2-1.x86_64".to_owned()), "{found:?}");
    let loose = [
        "one 1-1 x86_64; needs: lib",
        "two 1-1 x86_64; needs: three",
        "three 1-1 x86_64; needs: lib < 2",
        "lib 1-1 x86_64",
        "lib 2-1 x86_64",
    ];
    assert_eq!(closure(base(&loose), &["one", "two"])[0], "lib-1-1.x86_64");
    assert_eq!(
        closure(base(&loose), &["one", "two", "lib"]),
        [
            "`three-1-1.x86_64` (base) needs `lib < 2`, which `lib-1-1.x86_64` (base) provides, but `lib-2-1.x86_64` (base) is to be \
          installed"
        ]
    );
}

#[test]
fn of_several_providers_the_one_that_yum_takes() {
    let with = |user: &str, more: &[&str]| {
        let providers = [
            "exim 4-1 x86_64; gives: mta",
            "postfix 2-1 x86_64; gives: mta",
            "user-mta 1-1 x86_64; gives: mta; of: user-1-1.src.rpm",
            "mtamta 1-1 x86_64; gives: mta",
        ];
        let all: Vec<&str> = [user].iter().chain(&providers).chain(more).copied().collect();
        closure(base(&all), &["user", "have"]).join(" ")
    };
    let user = "user 1-1 x86_64; needs: mta; of: other.src.rpm";
    let have = "have 1-1 x86_64";
    assert_eq!(with(user, &[have]), "exim-4-1.x86_64 have-1-1.x86_64 user-1-1.x86_64", "the shortest");
    assert_eq!(
        with(user, &[have, "acme 1-1 x86_64; gives: mta"]),
        "acme-1-1.x86_64 have-1-1.x86_64 user-1-1.x86_64"
    );
    assert_eq!(
        with("user 1-1 x86_64; needs: mta", &[have]),
        "have-1-1.x86_64 user-1-1.x86_64 user-mta-1-1.x86_64",
        "of the same source"
    );
    assert_eq!(
        with("user 1-1 x86_64; needs: mta", &[have, "mta 1-1 x86_64"]),
        "have-1-1.x86_64 mta-1-1.x86_64 user-1-1.x86_64",
        "of the name itself"
    );
    assert_eq!(
        with(user, &["have 1-1 x86_64; needs: postfix"]),
        "have-1-1.x86_64 postfix-2-1.x86_64 user-1-1.x86_64",
        "what is there anyway, though it came later"
    );
    assert_eq!(
        with(user, &[have, "nosmtp 1-1 x86_64; replaces: exim < 5"]),
        "have-1-1.x86_64 mtamta-1-1.x86_64 user-1-1.x86_64",
        "not the obsolete one"
    );
    assert_eq!(
        with(user, &[have, "nosmtp 1-1 x86_64; replaces: exim < 5", "nosmtp 2-1 x86_64"]),
        "exim-4-1.x86_64 have-1-1.x86_64 user-1-1.x86_64",
        "only the newest build's word counts"
    );
}

#[test]
fn repositories_have_an_order_a_list_and_a_claim() {
    let repositories = |only: Option<&[&str]>| {
        let mut epel = repository(
            "epel",
            &["nginx 1:1.20.1-10.el7 x86_64; needs: pcre", "pcre 9-1 x86_64", "redis 3-1 x86_64"],
        );
        epel.only = only.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        vec![
            repository("base", &["pcre 8-1 x86_64", "redis 3-1 x86_64"]),
            epel,
            repository("nginx", &["nginx 1.26.1-2.el7.ngx x86_64; needs: pcre"]),
        ]
    };
    assert_eq!(
        closure(repositories(None), &["nginx", "redis"]),
        ["nginx-1:1.20.1-10.el7.x86_64@epel", "pcre-9-1.x86_64@epel", "redis-3-1.x86_64@base"]
    );
    assert_eq!(
        closure(repositories(Some(&["redis"])), &["nginx"]),
        ["nginx-1.26.1-2.el7.ngx.x86_64@nginx", "pcre-8-1.x86_64@base"]
    );
    let from = |repository: &str| {
        let wanted = [Wanted { name: "nginx".to_owned(), repositories: vec![repository.to_owned()] }];
        closure_with(repositories(Some(&["redis"])), &wanted, &[])
    };
    assert_eq!(from("nginx")[0], "nginx-1.26.1-2.el7.ngx.x86_64@nginx");
    assert_eq!(
        from("epel"),
        ["no package `nginx` in epel: the recipe names it; `only` hides `nginx` of epel"]
    );
    assert_eq!(
        from("ngnix"),
        ["there is no repository `ngnix`, from which `nginx` shall come: there are base, epel, nginx"]
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let packages = [
        "yum 3.4.3-168.el7 noarch; needs: python(abi) = 2.7, /usr/bin/absent, libnone",
        "python34 3.4.10-1.el7 x86_64; gives: python(abi) = 3.4",
        "rich 1-1 noarch; needs: (langpacks if glibc)",
        "old 1-1 noarch",
        "new 1-1 noarch; replaces: old",
        "user 1-1 noarch; needs: old",
        "left 1-1 noarch; hates: right < 2",
        "right 1-1 noarch",
    ];
    let mut two = base(&packages);
    two.push(Repository {
        only: Some(Vec::new()),
        ..repository("epel", &["secret 1-1 noarch; gives: libnone"])
    });
    let problems = closure(two, &["kernel", "yum", "yum-9", "rich", "user", "left", "right"]);
    insta::assert_snapshot!(problems.join("\n"), @r"
    no package `kernel` in base, epel: the recipe names it
    no package `yum-9` in base, epel: the recipe names it
    `rich-1-1.noarch` (base) needs `(langpacks if glibc)`: rpm of CentOS 7 knows no such rich dependencies, so it is no package for it
    `yum-3.4.3-168.el7.noarch` (base) needs `python(abi) = 2.7`, which no package of base, epel provides; they have `python(abi) = 3.4` of `python34-3.4.10-1.el7.x86_64` (base)
    `yum-3.4.3-168.el7.noarch` (base) needs `libnone`, which no package of base, epel provides; `only` hides `secret` of epel
    `user-1-1.noarch` (base) needs `old`, which only `old-1-1.noarch` (base) provides, and `new-1-1.noarch` (base) obsoletes that
    `yum-3.4.3-168.el7.noarch` (base) needs `/usr/bin/absent`, which no package of base, epel provides
    `left-1-1.noarch` (base) conflicts with `right-1-1.noarch` (base) (`right < 2`): both are to be installed
    ");
}

#[test]
fn both_sides_of_an_obsolete_cannot_be_asked_for() {
    let packages = ["old 1-1 noarch", "new 1-1 noarch; replaces: old < 2"];
    assert_eq!(
        closure(base(&packages), &["old", "new"]),
        ["`new-1-1.noarch` (base) obsoletes `old-1-1.noarch` (base) (`old < 2`): both are to be installed"]
    );
    assert_eq!(closure(base(&packages), &["old"]), ["old-1-1.noarch"]);
}

#[test]
fn file_lists_that_cannot_be_read_are_no_problem_of_the_recipe() {
    let universe = Universe::new(base(&["a 1-1 noarch; needs: /b"]));
    let answer = solve(&universe, &wanted(&["a"]), &mut |_| Err(anyhow::anyhow!("no network")));
    assert!(matches!(answer, Err(Unresolved::FileLists(error)) if error.to_string() == "no network"));
}

#[test]
fn versions_overlap_as_rpm_says() {
    for (provided, wanted, overlap) in [
        ("a = 1-1", "a = 1", true),
        ("a = 1-2", "a >= 1-3", false),
        ("a = 1:1", "a > 2", true),
        ("a", "a = 7", true),
        ("a < 2", "a > 1", true),
        ("a < 2", "a >= 2", false),
        ("a <= 2", "a >= 2", true),
        ("a < 2", "a < 1", true),
        ("a > 1-1", "a = 1", false),
        ("a = 1", "b", false),
    ] {
        assert_eq!(relation(provided).overlaps(&relation(wanted)), overlap, "{provided} for {wanted}");
    }
}

/// A universe of few names, so that they meet: versions, provides, files, conflicts.
fn packages() -> impl Strategy<Value = Vec<String>> {
    let name = || prop::sample::select(vec!["a", "b", "c", "dd", "ee", "v", "w", "/f", "/g"]);
    let op = || prop::sample::select(vec!["=", ">=", "<=", ">", "<"]);
    let relation = move || {
        prop_oneof![
            3 => name().prop_map(str::to_owned),
            2 => (name(), op(), 1..4u8).prop_map(|(name, op, version)| format!("{name} {op} {version}")),
        ]
    };
    let list = move |key: &'static str, most: usize| {
        prop::collection::vec(relation(), 0..=most).prop_map(move |all| {
            if all.is_empty() { String::new() } else { format!("{key}: {}", all.join(", ")) }
        })
    };
    let package = (
        prop::sample::select(vec!["a", "b", "c", "dd", "ee"]),
        1..4u8,
        list("gives", 3),
        list("needs", 3),
        list("hates", 1),
        list("replaces", 1),
        prop::sample::select(vec!["", "", "has: /f"]),
    );
    let package = package.prop_map(|(name, version, gives, needs, hates, replaces, has)| {
        let hates = if version == 3 { hates } else { String::new() };
        format!("{name} {version}-1 noarch; {gives}; {needs}; {hates}; {replaces}; {has}")
    });
    prop::collection::vec(package, 8..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]
    #[test]
    fn a_closure_is_closed(texts in packages(), owner in 0..24usize) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let universe = Universe::new(base(&texts));
        let owner = package(texts[owner % texts.len()]).sha256;
        let answer = |universe| solve(universe, &wanted(&["a", "b"]), &mut |files| {
            Ok(files.iter().filter(|file| *file == "/g").map(|file| (file.clone(), vec![owner.clone()])).collect())
        });
        if let Ok(closure) = answer(&universe) {
            let names: BTreeSet<&str> = closure.iter().map(|one| one.nevra.name.as_str()).collect();
            prop_assert_eq!(names.len(), closure.len());
            prop_assert!(names.contains("a") && names.contains("b"));
            for one in &closure {
                for need in &one.requires {
                    let met = closure.iter().any(|other| {
                        other.provides(need) || (need.name == "/g" && other.sha256 == owner)
                    });
                    prop_assert!(met, "{} of {}", need, one);
                }
                for other in closure.iter().filter(|other| other.nevra.name != one.nevra.name) {
                    prop_assert!(!one.conflicts.iter().any(|conflict| other.provides(conflict)), "{} and {}", one, other);
                    prop_assert!(!one.obsoletes.iter().any(|old| other.is_within(old)), "{} and {}", one, other);
                }
            }
            prop_assert_eq!(answer(&universe).unwrap(), closure);
        }
    }
}
