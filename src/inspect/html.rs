//! A snapshot, and a recording, as one page that needs nothing from a network.

use serde::Serialize;

use super::snapshot::Snapshot;
use super::timeline::Timeline;

/// The pages, each with a mark where the data goes.
const TREE: &str = include_str!("page.html");
const TREE_MARK: &str = "\"THE SNAPSHOT\"";
const TIMELINE: &str = include_str!("timeline.html");
const TIMELINE_MARK: &str = "\"THE TIMELINE\"";
/// What both pages have, each with the mark where it goes.
const COMMON: [(&str, &str); 2] = [
    ("/* THE COMMON STYLE */", include_str!("common.css")),
    ("/* THE COMMON SCRIPT */", include_str!("common.js")),
];

impl Snapshot {
    /// Returns a page with the tree: groups that fold, a search, the stragglers on top. It is one
    /// file, and makes no request. What follows a `#` in its address is searched for.
    ///
    /// It shows names, causes and paths of source files, so do not serve it on a public port.
    pub fn to_html(&self) -> String {
        page(TREE, TREE_MARK, self)
    }
}

pub(super) fn timeline(timeline: &Timeline) -> String {
    page(TIMELINE, TIMELINE_MARK, timeline)
}

/// Returns the page with the data. The data comes last, since it may contain a mark.
fn page(page: &str, mark: &str, data: &impl Serialize) -> String {
    let page = COMMON
        .into_iter()
        .fold(page.to_owned(), |page, (mark, part)| {
            page.replacen(mark, part, 1)
        });
    page.replacen(mark, &in_script(data), 1)
}

/// Returns the data as JSON that may stand inside a script element: without `<`, it can neither end
/// the script nor begin a comment.
fn in_script(data: &impl Serialize) -> String {
    match serde_json::to_string(data) {
        Ok(json) => json.replace('<', "\\u003c"),
        Err(error) => unreachable!("its maps have strings as keys: {error}"),
    }
}
