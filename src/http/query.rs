//! The query of a URL: decoded once, every name known, none twice that counts once.

use super::problem::{self, Problem, quoted};
use crate::config::nearest;
use percent_encoding::percent_decode_str;

/// The parameters of a request that nobody has taken yet.
pub(super) struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).collect::<Vec<u8>>();
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| {
                    (
                        String::from_utf8_lossy(&decode(name)).into_owned(),
                        decode(value),
                    )
                })
                .collect(),
        )
    }

    /// Parameters that came in another way.
    pub(super) fn of(pairs: Vec<(String, String)>) -> Self {
        let pairs = pairs.into_iter();
        Self(pairs.map(|(name, value)| (name, value.into())).collect())
    }

    /// Every value of a parameter that may come several times.
    pub(super) fn take_all(&mut self, name: &str) -> Result<Vec<String>, Problem> {
        let taken = self.0.extract_if(.., |(known, _)| known == name);
        taken.map(|(_, value)| utf8(name, value)).collect()
    }

    /// The value of a parameter that comes at most once.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<String>, Problem> {
        self.take_bytes(name)?
            .map(|value| utf8(name, value))
            .transpose()
    }

    /// The same, with what is not UTF-8 replaced.
    pub(super) fn take_lossy(&mut self, name: &str) -> Result<Option<String>, Problem> {
        Ok(self
            .take_bytes(name)?
            .map(|value| String::from_utf8_lossy(&value).into_owned()))
    }

    /// The value of a parameter, read by `read`, which is said to take `what`.
    pub(super) fn take_as<T>(
        &mut self,
        name: &str,
        what: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.take(name)? else {
            return Ok(None);
        };
        let wrong = || {
            Problem::new(
                &problem::PARAMETER,
                format!("`{name}` takes {what}, not {}", quoted(&text)),
            )
        };
        read(&text).map(Some).ok_or_else(wrong)
    }

    fn take_bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>, Problem> {
        let mut taken = self.0.extract_if(.., |(known, _)| known == name);
        let value = taken.next().map(|(_, value)| value);
        if taken.next().is_some() {
            return Err(Problem::new(
                &problem::PARAMETER,
                format!("`{name}` comes more than once"),
            ));
        }
        Ok(value)
    }

    /// Whether nobody has taken that parameter yet.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// Refuses what nobody took. `known` are the names that the route takes.
    pub(super) fn finish(self, known: &[&str]) -> Result<(), Problem> {
        let Some((name, _)) = self.0.iter().find(|(name, _)| !name.starts_with('_')) else {
            return Ok(());
        };
        let shown: String = name.chars().take(64).collect();
        let rest = match nearest(&shown, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "there are none".to_owned(),
            None => format!("there are: {}", known.join(", ")),
        };
        let detail = format!("there is no parameter `{shown}` here; {rest}");
        Err(Problem::new(&problem::UNKNOWN_PARAMETER, detail))
    }
}

fn utf8(name: &str, value: Vec<u8>) -> Result<String, Problem> {
    String::from_utf8(value)
        .map_err(|_| Problem::new(&problem::PARAMETER, format!("`{name}` is not UTF-8")))
}
