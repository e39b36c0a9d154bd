//! The page: files of `site/`, part of the program.
//!
//! Plain HTML, CSS and JavaScript modules as a browser takes them: nothing is built, nothing is fetched
//! from elsewhere. Everything that changes comes from `/view/`.

use super::Site;
use axum::{
    Router,
    http::header,
    response::IntoResponse,
    routing::{MethodRouter, get},
};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// Path, type, content.
pub(super) const FILES: [(&str, &str, &str); 10] = [
    ("/", HTML, include_str!("site/index.html")),
    ("/site/page.css", CSS, include_str!("site/page.css")),
    ("/site/icon.svg", IMAGE, include_str!("site/icon.svg")),
    ("/site/page.js", SCRIPT, include_str!("site/page.js")),
    ("/site/ring.js", SCRIPT, include_str!("site/ring.js")),
    ("/site/charts.js", SCRIPT, include_str!("site/charts.js")),
    ("/site/nodes.js", SCRIPT, include_str!("site/nodes.js")),
    ("/site/keys.js", SCRIPT, include_str!("site/keys.js")),
    ("/site/requests.js", SCRIPT, include_str!("site/requests.js")),
    ("/site/text.js", SCRIPT, include_str!("site/text.js")),
];

/// Every file at its path.
pub(super) fn routes() -> Router<Site> {
    FILES.into_iter().fold(Router::new(), |routes, (path, kind, content)| {
        routes.route(path, file(kind, content))
    })
}

fn file(kind: &'static str, content: &'static str) -> MethodRouter<Site> {
    get(move || async move { ([(header::CONTENT_TYPE, kind)], content).into_response() })
}
