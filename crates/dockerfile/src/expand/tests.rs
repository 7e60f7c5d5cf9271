use super::*;
use proptest::prelude::*;

fn variables() -> BTreeMap<String, String> {
    [
        ("A", "alpha"),
        ("EMPTY", ""),
        ("PATHS", "/usr/lib/a.so.1"),
        ("LIST", "one  two"),
        ("Ü", "u"),
        ("STAR", "a*b"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

fn check(word: &str, expected: &str) {
    let found = Expander::new('\\')
        .expand(word, &variables())
        .map(|found| found.text);
    assert_eq!(found.as_deref(), Ok(expected), "{word:?}");
}

fn refused(word: &str, part: &str) {
    let error = Expander::new('\\')
        .expand(word, &variables())
        .expect_err(word);
    assert!(error.contains(part), "{word:?}: {error}");
}

#[test]
fn variables_are_expanded() {
    check("$A", "alpha");
    check("${A}x", "alphax");
    check("$Ax", "");
    check("$A-x$", "alpha-x$");
    check("a$A$A", "aalphaalpha");
    check("$EMPTY$NONE.", ".");
    check("$1$12a", "a");
    check("$Ü", "u");
    check("$ $.", "$ $.");
    check("$$A", "A");
}

#[test]
fn defaults_and_alternatives() {
    check("${A:-w} ${A-w} ${A:+w} ${A+w}", "alpha alpha w w");
    check("${EMPTY:-w} ${EMPTY-w} ${EMPTY:+w} ${EMPTY+w}", "w   w");
    check("${NONE:-w} ${NONE-w} ${NONE:+w} ${NONE+w}.", "w w  .");
    check("${NONE:-${A}x}", "alphax");
    check("${NONE:-${NONE:-${A:+y}}}", "y");
    check("${NONE:-'a b'}${NONE:-\"$A\"}", "a balpha");
    check(r"${NONE:-\}}", "}");
    check("${NONE:-a-b:c}", "a-b:c");
    check("${A:?w}${A?w}", "alphaalpha");
    refused("${NONE?told}", "NONE: told");
    refused("${EMPTY:?}", "EMPTY: is not allowed to be empty");
    check("${EMPTY?}", "");
}

#[test]
fn patterns_are_trimmed() {
    check("${PATHS#*/}", "usr/lib/a.so.1");
    check("${PATHS##*/}", "a.so.1");
    check("${PATHS%.*}", "/usr/lib/a.so");
    check("${PATHS%%.*}", "/usr/lib/a");
    check("${PATHS#?u}", "sr/lib/a.so.1");
    check("${PATHS%x}", "/usr/lib/a.so.1");
    check("${A##*}", "");
    check("${A#}", "alpha");
    check(r"${STAR#a\*}", "b");
    check(r"${STAR%\*b}", "a");
    check("${NONE#x}", "");
    refused(r"${A#\a}", "invalid escape");
}

#[test]
fn patterns_are_replaced() {
    check("${A/a/x}", "xlpha");
    check("${A//a/x}", "xlphx");
    check("${A/l*h/-}", "a-a");
    check("${A//?/.}", ".....");
    check("${A/a/}", "lpha");
    check(r"${PATHS//\//_}", "_usr_lib_a.so.1");
    check("${A//z/x}", "alpha");
    check("${A/a/$EMPTY.}", ".lpha");
    refused("${A/a", "missing '/'");
    refused("${A/a/b", "missing '}'");
}

#[test]
fn quotes_and_escapes() {
    check("'$A' \"$A\"", "$A alpha");
    check(r"\$A \'", "$A '");
    check(r#""\"\$A\\ \n""#, r#""$A\ \n"#);
    check(r"a\", "a");
    check("'a\\'b", "a\\b");
    check("\"it's\"", "it's");
    refused("'a", "single-quote");
    refused("\"a", "double-quote");
    let backtick = |word| {
        Expander::new('`')
            .expand(word, &variables())
            .map(|found| found.text)
    };
    assert_eq!(backtick("`$A c:\\x"), Ok("$A c:\\x".to_owned()));
}

#[test]
fn broken_substitutions_are_refused() {
    refused("${", "missing '}'");
    refused("${A", "missing '}'");
    refused("${A:-b", "missing '}'");
    refused("${}", "bad substitution");
    refused("${:}", "bad substitution");
    refused("${{A}}", "bad substitution");
    refused("${A:", "missing '}'");
    refused("${A^x}", "unsupported modifier (^)");
    refused("${A:=x}", "unsupported modifier (:=)");
}

#[test]
fn words_are_split() {
    let check = |text: &str, expected: &[&str]| {
        let words = Expander::new('\\')
            .expand(text, &variables())
            .expect("sound")
            .words;
        assert_eq!(words, expected, "{text:?}");
    };
    check("a  b", &["a", "b"]);
    check("$LIST", &["one", "two"]);
    check("\"$LIST\" x", &["one  two", "x"]);
    check("a\\ b c", &["a b", "c"]);
    check("$EMPTY", &[]);
    check("a<< b", &["a<< b"]);
    check("a < b", &["a", "<", "b"]);
}

#[test]
fn what_is_kept_can_be_chosen() {
    let plain = Expander::new('\\');
    let check = |how: Expander, word: &str, expected: &str| {
        assert_eq!(
            how.expand(word, &variables())
                .map(|found| found.text)
                .as_deref(),
            Ok(expected),
            "{word:?}"
        );
    };
    check(plain.keep_quotes(), "'$A' \"$A\"", "'$A' \"alpha\"");
    check(
        plain.keep_unset(),
        "$NONE ${NONE} ${NONE:-x} ${NONE/a/b} $A",
        "$NONE ${NONE} ${NONE:-x} ${NONE/a/b} alpha",
    );
    check(plain.ignore_quotes(), "it's \"$A\"", "it's \"alpha\"");
    check(plain.keep_escapes(), r"\$A\x", r"\$A\x");
}

#[test]
fn missing_variables_are_named() {
    let found = Expander::new('\\')
        .expand("$A $NONE ${OTHER:-x}", &variables())
        .expect("sound");
    assert_eq!(
        found.missing.into_iter().collect::<Vec<_>>(),
        ["NONE", "OTHER"]
    );
}

#[test]
fn growth_is_bounded() {
    let big = BTreeMap::from([("B".to_owned(), "b".repeat(WORD_BYTES / 4))]);
    let expand = |word: &str| Expander::new('\\').expand(word, &big);
    assert!(expand("$B$B").is_ok());
    assert!(expand("$B$B$B$B$B").is_err());
    assert!(expand("${B//b/bbbbbbbb}").is_err());
    assert!(expand(&"${X:-".repeat(1000)).is_err());
    assert!(expand(&format!("\"{}\"", "$B".repeat(1000))).is_err());
}

proptest! {
    #[test]
    fn any_text_can_be_expanded_or_refused(word in "[$A{}:+?#%/*\\\\'\" <a-]{0,40}") {
        let _ = Expander::new('\\').expand(&word, &variables());
        let _ = Expander::new('`').keep_quotes().keep_unset().expand(&word, &variables());
    }

    #[test]
    fn plain_text_stays_as_it_is(word in "[a-z/._=-]{0,40}") {
        let found = Expander::new('\\').expand(&word, &variables()).expect("nothing to expand");
        prop_assert_eq!(found.text, word);
    }
}
