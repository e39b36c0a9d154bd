//! Patterns of KEYS, SCAN and CONFIG GET: `*`, `?`, `[a-z]`, `[^a]`, `\` for the next byte itself.
//!
//! One position to come back to is enough: a later `*` takes over from an earlier one, so the work is
//! at most the product of both lengths, where Redis's recursion is worse.

/// Whether all of `text` matches `pattern`; `fold` ignores ASCII case.
pub(super) fn matches(pattern: &[u8], text: &[u8], fold: bool) -> bool {
    let (mut rest, mut left) = (pattern, text);
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = rest {
            star = Some((after, left));
            rest = after;
            continue;
        }
        match left {
            [] if rest.is_empty() => return true,
            [byte, after @ ..] => {
                if let Some(next) = step(rest, *byte, fold) {
                    (rest, left) = (next, after);
                    continue;
                }
            }
            [] => {}
        }
        // A mismatch: let the last star take one byte more.
        match star {
            Some((after, [_, shorter @ ..])) => {
                star = Some((after, shorter));
                (rest, left) = (after, shorter);
            }
            Some((_, [])) | None => return false,
        }
    }
}

/// The pattern after its first element, where that one accepts `byte`.
fn step(pattern: &[u8], byte: u8, fold: bool) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', class @ ..] => in_class(class, byte, fold),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
            same(*literal, byte, fold).then_some(rest)
        }
    }
}

/// The pattern after the class, where it accepts `byte`. A class without end ends with the pattern.
fn in_class(class: &[u8], byte: u8, fold: bool) -> Option<&[u8]> {
    let (negated, mut class) = match class {
        [b'^', class @ ..] => (true, class),
        class => (false, class),
    };
    let folded = |byte: u8| if fold { byte.to_ascii_lowercase() } else { byte };
    let mut found = false;
    loop {
        match class {
            [] => return (found != negated).then_some(class),
            [b']', rest @ ..] => return (found != negated).then_some(rest),
            [b'\\', literal, rest @ ..] => {
                found |= same(*literal, byte, fold);
                class = rest;
            }
            [from, b'-', to, rest @ ..] => {
                let (low, high) = (folded(*from.min(to)), folded(*from.max(to)));
                found |= (low..=high).contains(&folded(byte));
                class = rest;
            }
            [literal, rest @ ..] => {
                found |= same(*literal, byte, fold);
                class = rest;
            }
        }
    }
}

fn same(a: u8, b: u8, fold: bool) -> bool {
    a == b || (fold && a.eq_ignore_ascii_case(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_documented() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h[a-b]llo", "hcllo", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("[\\]]", "]", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
            ("a*", "ba", false),
            ("a**b", "ab", true),
            ("[a", "a", true),
            ("a\\", "a\\", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes(), false),
                expected,
                "{pattern} {text}"
            );
        }
        assert!(matches(b"MAX*", b"maxmemory", true));
        assert!(!matches(b"MAX*", b"maxmemory", false));
    }

    #[test]
    fn a_hostile_pattern_does_not_explode() {
        let pattern = b"*a".repeat(500);
        assert!(!matches(&[&pattern[..], b"b"].concat(), &[b'a'; 4_000], false));
    }
}
