//! The Jinja environment that chat templates expect, that of Transformers, for templates that nobody
//! vouches for.
//!
//! minijinja counts a template's steps, but a step may double a text, and one filter may take hours.
//! So a template is compiled from a rebuilt syntax tree ([`metered`]), in which all that is made is
//! paid for from one [`Meter`]; filters, tests, functions and methods are those listed here, wrapped
//! to pay for their results, and beforehand for what is more than the sum of their arguments.

mod builtins;
mod json;
mod meter;
mod metered;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use minijinja::machinery::{
    CodeGenerator, Instructions, Vm, WhitespaceConfig, make_string_output, parse,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, Value};

use meter::{Meter, refusal};

/// Steps a template may take.
const FUEL: u64 = 2_000_000;
/// Macros inside each other.
const RECURSION: usize = 64;
/// Bytes of a template.
const MOST_SOURCE: usize = 1 << 17;
/// Bytes a template may make of nothing, and for each byte that it is given.
const MOST_MADE: (usize, usize) = (1 << 20, 64);
/// Bytes it may write, likewise.
const MOST_WRITTEN: (usize, usize) = (1 << 16, 4);
/// The parser, the compiler and the destructor of the tree recurse over a chain such as
/// `a ~ b ~ c`: enough for the longest that [`MOST_SOURCE`] can spell. It is not touched otherwise.
const STACK: usize = 256 << 20;
/// The template's name in errors.
const NAME: &str = "chat template";

/// An error if `source` is no template.
pub(super) fn check(source: &str) -> Result<(), Error> {
    on_large_stack(|| compile(source).map(|_| ()))
}

/// What the template `source` writes in `context`, which is made of `given` bytes of text. An error
/// if it fails, takes too many steps, makes too much, or takes too long.
pub(super) fn render(source: &str, context: &Value, given: usize) -> Result<String, Error> {
    on_large_stack(|| {
        let instructions = compile(source)?;
        let most = |(base, each)| given.saturating_mul(each).saturating_add(base);
        let env = environment(&Arc::new(Meter::new(most(MOST_MADE))));
        let mut text = String::new();
        Vm::new(&env).eval(
            &instructions,
            context.clone(),
            &BTreeMap::new(),
            &mut make_string_output(&mut text),
            AutoEscape::None,
        )?;
        match most(MOST_WRITTEN) {
            most if text.len() > most => Err(refusal(format!("it writes more than {most} bytes"))),
            _ => Ok(text),
        }
    })
}

fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| refusal(format!("no thread to read it on: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(refusal("it breaks the template engine".into())))
    })
}

fn compile(source: &str) -> Result<Instructions<'_>, Error> {
    if source.len() > MOST_SOURCE {
        return Err(refusal(format!("it is longer than {MOST_SOURCE} bytes")));
    }
    let spaces =
        WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };
    let tree = parse(source, NAME, SyntaxConfig, spaces)?;
    let mut code = CodeGenerator::new(NAME, source);
    code.compile_stmt(&metered::stmt(&tree));
    Ok(code.finish().0)
}

/// An environment with the functions and filters that Transformers gives templates, paid from
/// `meter`.
fn environment(meter: &Arc<Meter>) -> Environment<'static> {
    let mut env = Environment::empty();
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(RECURSION);
    builtins::add_to(&mut env, meter);
    env
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn run(source: &str) -> Result<String, String> {
        let error = |e: Error| e.detail().map_or_else(|| e.kind().to_string(), ToOwned::to_owned);
        render(source, &Value::from_iter([("x", "a b")]), 0).map_err(error)
    }

    #[test]
    fn values_that_grow_are_stopped() {
        let doubling = |step: &str| {
            format!(
                "{{% set ns = namespace(x='ab') %}}{{% for i in range(99) %}}{step}{{% endfor %}}"
            )
        };
        let texts = [
            "{% set ns.x = ns.x ~ ns.x %}",
            "{% set ns.x = ns.x + ns.x %}",
            "{% set ns.x = ns.x * 2 %}",
            "{% set ns.x = [ns.x, ns.x] | join %}",
            "{% set ns.x = ns.x.replace('a', ns.x) %}",
            "{% set ns.x = ns.x | replace('', ns.x) %}",
            "{% set ns.x = ns.x | indent(ns.x | length, true) %}",
            "{% set ns.x = ns.x.join(ns.x | list) %}",
            "{% set ns.x = ['a', 'b', 'c'] | map('default', ns.x) | join(ns.x) %}",
            "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}",
            "{% set ns.x %}{% filter upper %}{{ ns.x }}{{ ns.x }}{% endfilter %}{% endset %}",
            "{% macro m() %}{{ ns.x }}{{ caller() }}{% endmacro %}\
             {% set ns.x %}{% call m() %}{{ ns.x }}{% endcall %}{% endset %}",
            "{% set ns.x %}{{ loop.cycle(ns.x) }}{{ ns.x }}{% endset %}",
            "{% set ns.x = dict(a=ns.x, b=ns.x) | string %}",
            "{% set y = namespace(a=ns.x, b=ns.x) %}{% set ns.x = y | string %}",
            "{% set y = namespace() %}{% set y.a, y.b = [ns.x, ns.x] %}{% set ns.x = y ~ '' %}",
        ];
        for step in texts {
            let e = run(&doubling(step)).unwrap_err();
            assert_eq!(e, "it makes more than 1048576 bytes of texts", "{step}");
        }
        let lists = [
            "{% set ns.x = [ns.x, ns.x] %}",
            "{% set ns.x = {'a': ns.x, 'b': ns.x} %}",
            "{% set ns.x = [ns.x] %}",
        ];
        for step in lists {
            let e = run(&doubling(step)).unwrap_err();
            let known = ["it makes more than 1048576 bytes of texts", "its lists are too deep"];
            assert!(known.contains(&e.as_str()), "{step}: {e}");
        }
        let long = "{% set ns = namespace(x=[1, 2]) %}\
                    {% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}";
        assert_eq!(run(long).unwrap_err(), "it makes more than 1048576 bytes of texts");
        let raw = format!("{{% for i in range(99999) %}}{}{{% endfor %}}", "text ".repeat(99));
        assert_eq!(run(&raw).unwrap_err(), "it makes more than 1048576 bytes of texts");
    }

    #[test]
    fn nothing_is_computed_while_compiling() {
        let constants = "{{ 'a' * 99999999 }}".repeat(999);
        assert!(check(&constants).is_ok());
        assert_eq!(run(&constants).unwrap_err(), "it makes more than 1048576 bytes of texts");
        let chain = format!("{{{{ 'a'{} }}}}", "~'a'".repeat(MOST_SOURCE / 4 - 4));
        assert!(run(&chain).is_err());
        let (deep, end) = ("[".repeat(9999), "]".repeat(9999));
        assert!(check(&format!("{{{{ {deep}{end} }}}}")).is_err());
        assert!(check(&" ".repeat(MOST_SOURCE + 1)).is_err());
    }

    #[test]
    fn what_holds_itself_is_refused() {
        let refused = "a namespace in a list or in a namespace";
        for source in [
            "{% set n = namespace() %}{% set n.n = n %}{{ n }}",
            "{% set n = namespace() %}{% set n.n = [n] %}{{ n }}",
            "{% set n = namespace() %}{% set m = namespace(n=n) %}{{ m }}",
            "{% set n = namespace() %}{% set m = dict(n=n) %}{{ m }}",
            "{% set n = namespace() %}{% set n.a, n.b = (n, n) %}{{ n }}",
        ] {
            assert_eq!(run(source).unwrap_err(), refused, "{source}");
        }
    }

    #[test]
    fn lists_are_not_multiplied() {
        for source in ["{{ [1, 2] * 10000000001000000000 }}", "{{ 3 * [x] }}", "{{ x * [1] }}"] {
            let e = run(source).unwrap_err();
            assert!(e.ends_with("is not multiplied here"), "{source}: {e}");
        }
        assert_eq!(run("{{ 'ab' * 2 * 2 }}{{ 2 * 3 }}").unwrap(), "abababab6");
    }

    #[test]
    fn what_takes_long_is_stopped() {
        let start = Instant::now();
        for source in [
            "{{ x.count('') }}",
            "{% set a = 'a' * 400000 %}{{ a.strip(a) }}",
            "{% set a = range(9999) | list %}{{ a | select('in', a) | list }}",
            "{% set a = 'a' * 400000 %}{% set b = 'a' * 400000 %}\
             {% for i in range(9999) %}{% if a == b %}{% endif %}{% endfor %}",
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        ] {
            assert!(run(source).is_err(), "{source}");
        }
        assert!(start.elapsed() < 3 * meter::MOST_TIME);
    }

    #[test]
    fn what_templates_do_goes_on_as_it_was() {
        let cases = [
            ("{{ x.split(' ') | map('upper') | join('-') }}", "A-B"),
            ("{% for c in x | list if c != ' ' %}{{ loop.index }}{{ c }}{% endfor %}", "1a2b"),
            (
                "{% macro m(n, k=2) %}{{ n * k }}{{ caller() }}{% endmacro %}{% call m(3) %}!{% endcall %}",
                "6!",
            ),
            (
                "{% for a in [[1, [2]]] recursive %}{% if a is iterable %}<{{ loop(a) }}>{% else %}{{ a }}{% endif %}{% endfor %}",
                "<1<2>>",
            ),
            (
                "{% set n = namespace(a=1) %}{% for i in [1, 2] %}{% set n.a = n.a + i %}{% endfor %}{{ n.a }}",
                "4",
            ),
            ("{{ {'a': 1, 'b': [x[::-1], x[1:]]} | tojson }}", r#"{"a": 1, "b": ["b a", " b"]}"#),
            ("{{ 1 < 2 < 3 and x is string and 'a' in x and not y is defined }}", "True"),
            ("{% set t %}{{ x }}!{% endset %}{{ t | replace('a', 'c') | trim('!') }}", "c b"),
            ("{{ -3 + 2 ** 3 % 5 }} {{ [1] + [2] }} {{ (x or y) if x else 3 }}", "0 [1, 2] a b"),
        ];
        for (source, text) in cases {
            assert_eq!(run(source).as_deref(), Ok(text), "{source}");
        }
        let e = run("{% block b %}{% endblock %}").unwrap_err();
        assert_eq!(e, "blocks and other templates are not supported");
    }
}
