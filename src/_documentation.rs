//! The documents of the repository, for reading here.
//!
//! | document | what it is for |
//! |---|---|
//! | [Guide](guide) | servers whose requests end early: disconnects, deadlines, layers, shutdown |
//! | [Coming from Go](go) | Go's functions, and the programs of its tutorials, in Rust |
//! | [Comparison](compare) | what similar libraries have that this one lacks, and the reverse |
//! | [Bridges](bridges) | child processes, SQL queries and loops, which a drop does not stop |
//! | [Distributed](distributed) | one request over many services; jobs that outlive their caller |
//! | [Finding what hangs](inspect) | which task does not stop, since when, and where it started |
//! | [Cost](cost) | what each operation takes, in time and in memory |
//! | [Testing](testing) | how the crate is tested |
//! | [Design](design) | why the crate is built as it is |
//!
//! The modules are empty. They exist for rustdoc alone, so a program cannot name them.

// # Links between the documents
//
// The documents are read on GitHub, too. So a link to another document or to a file of the
// repository is a reference whose label is the path, which the last lines of the document define
// for GitHub:
//
//     see [Bridges][BRIDGES.md]
//
//     [BRIDGES.md]: BRIDGES.md
//
// If a label has several definitions, Markdown uses the first. `links` is put in front of each
// document, so here its definitions are used. `.ci/docs.sh` finds a link that has none.

/// The links of all documents: to modules, and to the files of this version on docs.rs.
macro_rules! links {
    (modules: $($module:literal: $to:literal,)* files: $($file:literal: $path:literal,)*) => {
        concat!(
            $("[", $module, "]: crate::_documentation::", $to, "\n",)*
            $(
                "[", $file, "]: https://docs.rs/crate/errgroup/", env!("CARGO_PKG_VERSION"),
                "/source/", $path, "\n",
            )*
        )
    };
    () => {
        links! {
            modules:
            "BRIDGES.md": "bridges",
            "COMPARE.md": "compare",
            "COST.md": "cost",
            "DESIGN.md": "design",
            "DISTRIBUTED.md": "distributed",
            "GO.md": "go",
            "GUIDE.md": "guide",
            "INSPECT.md": "inspect",
            "TESTING.md": "testing",
            files:
            "benches/README.md": "benches/README.md",
            "cost/depth.svg": "docs/cost/depth.svg",
            "cost/fan.svg": "docs/cost/fan.svg",
            "cost/items.svg": "docs/cost/items.svg",
            "cost/limits.svg": "docs/cost/limits.svg",
            "cost/tasks.svg": "docs/cost/tasks.svg",
            "cost/waiting.svg": "docs/cost/waiting.svg",
        }
    };
}

// The code of a document is a doctest of the module. If it needs a feature, the document is left
// out of the doctests without it, and is still shown. The guides need HTTP servers and clients, so
// they are doctests of `tests/http/docs.rs`, and the library needs no such dependencies.

#[doc = links!()]
#[cfg_attr(not(doctest), doc = include_str!("../docs/GUIDE.md"))]
pub mod guide {}

#[doc = links!()]
#[cfg_attr(not(doctest), doc = include_str!("../docs/GO.md"))]
pub mod go {}

#[doc = links!()]
#[doc = include_str!("../docs/COMPARE.md")]
pub mod compare {}

#[doc = links!()]
#[doc = include_str!("../docs/BRIDGES.md")]
pub mod bridges {}

#[doc = links!()]
#[cfg_attr(
    any(not(doctest), feature = "tokio-util"),
    doc = include_str!("../docs/DISTRIBUTED.md")
)]
pub mod distributed {}

#[doc = links!()]
#[cfg_attr(any(not(doctest), feature = "inspect"), doc = include_str!("../docs/INSPECT.md"))]
pub mod inspect {}

#[doc = links!()]
#[doc = include_str!("../docs/COST.md")]
pub mod cost {}

#[doc = links!()]
#[doc = include_str!("../docs/TESTING.md")]
pub mod testing {}

#[doc = links!()]
#[doc = include_str!("../docs/DESIGN.md")]
pub mod design {}
