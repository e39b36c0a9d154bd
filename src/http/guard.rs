//! Who may see what, and what a browser may do with it.
//!
//! The password guards everything but `/health`. What shows keys or values is guarded twice: a page on the
//! internet can give its own name this node's address (DNS rebinding) and then read as if it were one
//! of ours, so without a password only addresses and `localhost` are taken for the name of this node.

use super::Site;
use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::net::IpAddr;

/// Nothing but what this node serves itself: no script or style within the page, none from elsewhere,
/// no frame around it, no form.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The headers that every answer has.
pub(super) async fn strict(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CACHE_CONTROL, "no-store");
    set(header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    response
}

/// Lets a request pass if it names this node as only its own pages and people do.
pub(super) async fn own_name(State(site): State<Site>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    if site.settings.password.is_some() || host.is_none_or(is_own_name) {
        return next.run(request).await;
    }
    let what = "call this node by its IP address or as localhost, or set a password\n";
    (StatusCode::MISDIRECTED_REQUEST, what).into_response()
}

/// Whether a `Host` header is an address or this machine, with or without a port.
fn is_own_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

/// Lets a request pass if it has the password, or none is needed.
pub(super) async fn password(State(site): State<Site>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    match &site.settings.password {
        Some(password) if !given.is_some_and(|given| proves(given, password.0.as_bytes())) => (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Basic realm=\"SimpleDynamo\"")],
            "the password is needed: curl --user any:PASSWORD\n",
        )
            .into_response(),
        _ => next.run(request).await,
    }
}

/// Whether an `Authorization` header has the password.
fn proves(given: &[u8], password: &[u8]) -> bool {
    let Some(space) = given.iter().position(|byte| *byte == b' ') else { return false };
    let (scheme, rest) = given.split_at(space);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return same(rest, password);
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return false;
    }
    let Ok(pair) = STANDARD.decode(rest) else { return false };
    let Some(colon) = pair.iter().position(|byte| *byte == b':') else { return false };
    pair.get(colon + 1..).is_some_and(|given| same(given, password))
}

/// Equality in a time that depends on the lengths only, so that it tells nothing of the content.
fn same(given: &[u8], password: &[u8]) -> bool {
    let differences = given.iter().zip(password).fold(0, |seen, (a, b)| seen | (a ^ b));
    given.len() == password.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_own_names() {
        for own in
            ["127.0.0.1:13108", "127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:13108", "[::1]"]
        {
            assert!(is_own_name(own), "{own}");
        }
        for other in
            ["evil.example:13108", "evil.example", "localhost.evil.example", "", "?", "a:b"]
        {
            assert!(!is_own_name(other), "{other}");
        }
    }
}
