//! Where an MLflow server is and how one shows it who is asking; credentials leave this file in a request header only.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::MlflowError;

/// Time for an answer to the question whether anybody is there.
const ANSWER: Duration = Duration::from_secs(5);

/// A text that is never shown: neither by `Debug` nor in a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// An MLflow server: its address and the credentials for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    address: String,
    /// Value of the `Authorization` header.
    authorization: Option<Secret>,
    /// What must not appear in a message.
    hidden: Vec<Secret>,
}

impl Server {
    /// The server at `uri` (http or https, with or without a path). As MLflow's own client does it, user name and password
    /// win over the token; those within the address come last.
    pub fn new(
        uri: &str,
        user: Option<&str>,
        password: Option<Secret>,
        token: Option<Secret>,
    ) -> Result<Self, MlflowError> {
        let uri = uri.trim();
        let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (inside, host) = match authority.rsplit_once('@') {
            Some((inside, host)) => (Some(inside), host),
            None => (None, authority),
        };
        let path = path.split(['?', '#']).next().unwrap_or("").trim_end_matches('/');
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") || host.is_empty() {
            let found = if scheme.is_empty() { host.to_owned() + path } else { format!("{scheme}://{host}{path}") };
            return Err(MlflowError::Address { found });
        }
        let address = format!("{scheme}://{host}{path}");
        let (inside_user, inside_password) = inside.map_or(("", ""), |i| i.split_once(':').unwrap_or((i, "")));
        let basic = |user: &str, password: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let authorization = match (user, &password, &token) {
            (Some(user), Some(password), _) => Some(basic(user, &password.0)),
            (_, _, Some(token)) => Some(format!("Bearer {}", token.0)),
            _ if inside.is_some() => Some(basic(&decoded(inside_user), &decoded(inside_password))),
            _ => None,
        };
        let mut hidden: Vec<Secret> = [password, token].into_iter().flatten().collect();
        hidden.extend([inside_password.to_owned(), decoded(inside_password)].map(Secret));
        if let Some((_, encoded)) = authorization.as_deref().and_then(|header| header.split_once(' ')) {
            hidden.push(Secret::new(encoded));
        }
        hidden.retain(|secret| !secret.0.is_empty());
        Ok(Self { address, authorization: authorization.map(Secret), hidden })
    }

    /// The address without credentials and without a slash at its end; the name under which progress is kept.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether a server answers there.
    pub fn answers(&self) -> bool {
        let agent = ureq::AgentBuilder::new().timeout(ANSWER).build();
        agent.get(&format!("{}/health", self.address)).call().is_ok()
    }

    pub(super) fn authorization(&self) -> Option<&str> {
        self.authorization.as_ref().map(|secret| secret.0.as_str())
    }

    /// `text` without any secret, should an answer repeat one.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        self.hidden.iter().fold(text.to_owned(), |text, secret| text.replace(&secret.0, "***"))
    }
}

/// Percent-encoding undone; what is no valid text stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(server: &Server) -> &str {
        server.authorization().unwrap_or("")
    }

    #[test]
    fn credentials_become_a_header_and_are_shown_nowhere() {
        let plain = Server::new("http://127.0.0.1:5000/", None, None, None).unwrap();
        assert_eq!((plain.address(), header(&plain)), ("http://127.0.0.1:5000", ""));
        let inside = Server::new("HTTPS://ann:s%2Fcret@host/ml/?q", None, None, None).unwrap();
        assert_eq!((inside.address(), header(&inside)), ("https://host/ml", "Basic YW5uOnMvY3JldA=="));
        let basic = Server::new("http://h", Some("ann"), Some(Secret::new("pass")), Some(Secret::new("tok"))).unwrap();
        assert_eq!(header(&basic), "Basic YW5uOnBhc3M=");
        let token = Server::new("http://h", Some("ann"), None, Some(Secret::new("tok"))).unwrap();
        assert_eq!(header(&token), "Bearer tok");
        assert_eq!(token.without_secrets("no tok, Bearer tok"), "no ***, Bearer ***");
        assert_eq!(inside.without_secrets("s/cret s%2Fcret YW5uOnMvY3JldA=="), "*** *** ***");
        let shown = format!("{inside:?} {basic:?} {token:?}");
        for secret in ["cret", "pass", "tok\"", "YW5"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn other_addresses_are_refused_without_their_credentials() {
        for (uri, shown) in [
            ("./mlruns", "./mlruns"),
            ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
            ("postgresql://ann:secret@db/mlflow", "postgresql://db/mlflow"),
            ("databricks", "databricks"),
            ("http://", "http://"),
        ] {
            let error = Server::new(uri, None, None, None).unwrap_err().to_string();
            let first =
                format!("MLFLOW_TRACKING_URI is `{shown}`; expected an address such as `http://127.0.0.1:5000`");
            assert_eq!(error.lines().next(), Some(first.as_str()));
        }
    }
}
