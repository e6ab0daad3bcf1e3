//! The known name that somebody may have meant.

/// The candidate most like `name`, if any is like it at all. What counts is the whole name, or its last
/// part: so `bytes_max` finds `log.bytes_max`.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let score = |candidate: &str| {
        let whole = strsim::normalized_damerau_levenshtein(name, candidate);
        let last = strsim::normalized_damerau_levenshtein(last_part(name), last_part(candidate));
        // This one forgives a missing end, and finds something like it almost anywhere.
        let begin = strsim::jaro_winkler(last_part(name), last_part(candidate));
        whole
            .max(0.95 * last)
            .max(if begin >= 0.8 { 0.9 * begin } else { 0.0 })
    };
    candidates
        .into_iter()
        .map(|candidate| (score(candidate), candidate))
        .filter(|(score, _)| *score > 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn last_part(name: &str) -> &str {
    let name = name.rsplit('.').next().unwrap_or(name);
    name.rsplit("__").next().unwrap_or(name)
}
