//! Who may use the API: only this host's names, no foreign web pages, and writers with the token.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::{App, Refusal};

const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Refuses names that a rebound DNS entry could have, and requests from other pages.
pub(super) async fn origin(State(app): State<App>, request: Request, next: Next) -> Response {
    match check_origin(request.headers(), &app.hosts) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Asks writers for the token.
pub(super) async fn token(State(app): State<App>, request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if is_token(given, &app.token) {
        next.run(request).await
    } else {
        Refusal::forbidden(
            "writing needs the header `Authorization: Bearer <token>` with the token in the node's api.token",
        )
        .into_response()
    }
}

fn check_origin(headers: &HeaderMap, hosts: &[String]) -> Result<(), Refusal> {
    let host = headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_own(host, hosts) {
        return Err(Refusal::forbidden(format!(
            "host {host:?} is not one of this node's; add it to api.hosts in config.toml"
        )));
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let text = origin.to_str().unwrap_or_default();
        let name = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or("");
        if !is_own(name, hosts) {
            return Err(Refusal::forbidden(format!("pages of {text:?} may not use this node")));
        }
    }
    Ok(())
}

fn is_own(authority: &str, hosts: &[String]) -> bool {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => authority,
    };
    LOOPBACK.contains(&name) || hosts.iter().any(|host| host == name)
}

fn is_token(given: Option<&str>, token: &str) -> bool {
    let Some(given) = given.and_then(|value| value.strip_prefix("Bearer ")) else {
        return false;
    };
    // Every byte is looked at whatever the first ones are.
    given.len() == token.len()
        && given.bytes().zip(token.bytes()).fold(0u8, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().expect("a header"));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn loopback_and_named_hosts_may_ask_and_rebound_names_may_not() {
        let hosts = ["node.home".to_owned()];
        for host in ["127.0.0.1:26980", "localhost", "[::1]:80", "node.home:1"] {
            assert!(check_origin(&headers(host, None), &hosts).is_ok(), "{host}");
        }
        for host in ["evil.example:26980", "", "127.0.0.1.evil.example"] {
            assert!(check_origin(&headers(host, None), &hosts).is_err(), "{host}");
        }
    }

    #[test]
    fn foreign_pages_may_not_use_the_node() {
        assert!(check_origin(&headers("localhost", Some("http://localhost:26980")), &[]).is_ok());
        assert!(check_origin(&headers("localhost", Some("https://evil.example")), &[]).is_err());
        assert!(check_origin(&headers("localhost", Some("null")), &[]).is_err());
    }

    #[test]
    fn only_the_whole_token_opens() {
        assert!(is_token(Some("Bearer abc"), "abc"));
        for given in [None, Some("abc"), Some("Bearer ab"), Some("Bearer abd"), Some("bearer abc")] {
            assert!(!is_token(given, "abc"), "{given:?}");
        }
    }
}
