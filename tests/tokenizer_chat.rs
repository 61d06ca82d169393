//! Chat templates. The expected texts are those of Jinja2 3.1, set up as `transformers` sets it up.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use worker_orcd::tokenizer::{ChatMessage, ChatTemplate, ChatTemplateError, Tokenizer};

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, "<s>", "</s>").unwrap()
}

fn render(source: &str) -> Result<String, ChatTemplateError> {
    let messages = [ChatMessage::new("user", "hi"), ChatMessage::new("assistant", "hello <b>")];
    template(source).render(&messages, true)
}

#[test]
fn the_template_of_a_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizer/ggml-vocab-phi-3.gguf");
    let tokenizer = Tokenizer::from_gguf(path).unwrap();
    let template = ChatTemplate::of(&tokenizer).unwrap().unwrap();
    let messages = [
        ChatMessage::new("user", "hi"),
        ChatMessage::new("assistant", "hello"),
        ChatMessage::new("user", "bye"),
    ];
    assert_eq!(
        template.render(&messages, true).unwrap(),
        "<s><|user|>\nhi<|end|>\n<|assistant|>\nhello<|end|>\n<|user|>\nbye<|end|>\n<|assistant|>\n"
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizer/ggml-vocab-gpt-2.gguf");
    assert!(ChatTemplate::of(&Tokenizer::from_gguf(path).unwrap()).unwrap().is_none());
}

#[test]
fn the_usual_shapes_of_templates() {
    for (source, expected) in [
        // ChatML, as Qwen and SmolLM have it.
        (
            "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
            "<|im_start|>system\nYou help<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello <b><|im_end|>\n<|im_start|>assistant\n",
        ),
        // Llama 2 and 3: namespaces, `set`, slices, Python's string methods.
        (
            "{{- bos_token }}\n{%- set ns = namespace(n=0) %}\n{%- for message in messages[1:] %}\n    {%- set ns.n = ns.n + 1 %}\n    {{- message.content.strip().upper() ~ ns.n }}\n{%- endfor %}{{ eos_token }}",
            "<s>HELLO <B>1</s>",
        ),
        (
            "{% if tools is defined and tools %}tools{% else %}none{% endif %}{% if not documents %}!{% endif %}",
            "none!",
        ),
        (
            "{% if tools is iterable and tools|length > 0 %}tools{% elif messages is iterable %}none{% endif %}",
            "none",
        ),
        (
            "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
            "user",
        ),
        (
            "{{ messages[0].items()|list|length }}{{ 'a,b'.split(',')[-1] }}{{ 'xay'.replace('a', '-') }}",
            "2bx-y",
        ),
        // Blocks take their line with them.
        ("a\n    {% if true %}\nb\n    {% endif %}\nc\n", "a\nb\nc"),
        // Marks for training print nothing, and eat white space like any other block.
        ("{% generation %}a{% endgeneration %}|{%- generation -%} b {%- endgeneration -%} c", "a|bc"),
    ] {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }
}

#[test]
fn json_is_pythons() {
    for (source, expected) in [
        ("{{ messages[1] | tojson }}", r#"{"role": "assistant", "content": "hello <b>"}"#),
        (
            "{{ [1, 2.5, true, none, 'é\"\\n\\x7f\\u2028'] | tojson }}",
            "[1, 2.5, true, null, \"é\\\"\\n\u{7f}\u{2028}\"]",
        ),
        ("{{ 'é😀\\x7f' | tojson(ensure_ascii=true) }}", r#""\u00e9\ud83d\ude00\u007f""#),
        (
            "{{ {'b': [], 'a': {'c': 1}} | tojson(indent=2, sort_keys=true) }}",
            "{\n  \"a\": {\n    \"c\": 1\n  },\n  \"b\": []\n}",
        ),
        ("{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':')) }}", r#"{"b":1,"a":2}"#),
        ("{{ {} | tojson }}{{ [] | tojson(indent=4) }}", "{}[]"),
    ] {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }
}

#[test]
fn dates_are_those_of_today() {
    let year: u32 = render("{{ strftime_now('%Y') }}").unwrap().parse().unwrap();
    assert!((2025..3000).contains(&year));
    assert!(matches!(render("{{ strftime_now('%Q') }}"), Err(ChatTemplateError::Render { .. })));
}

#[test]
fn a_template_that_refuses_fails_or_never_ends_is_a_typed_error() {
    let refused =
        render("{% if messages[0].role == 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}");
    let Err(ChatTemplateError::Refused { message }) = refused else { panic!("{refused:?}") };
    assert_eq!(message, "roles must alternate");
    assert!(matches!(ChatTemplate::new("{% for", "", ""), Err(ChatTemplateError::Syntax { .. })));
    assert!(matches!(render("{{ nothing.at.all }}"), Err(ChatTemplateError::Render { .. })));
    assert!(matches!(render("{{ messages | nofilter }}"), Err(ChatTemplateError::Render { .. })));
    assert!(matches!(render("{% include 'other' %}"), Err(ChatTemplateError::Render { .. })));
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
    assert!(matches!(render(endless), Err(ChatTemplateError::Endless { .. })));
    let deep = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}";
    assert!(matches!(render(deep), Err(ChatTemplateError::Render { .. })));
    let nested = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(matches!(ChatTemplate::new(&nested, "", ""), Err(ChatTemplateError::Syntax { .. })));
    let long = "{% set x = 'x' * 1000000 %}{% for a in range(9999) %}{{ x }}{% endfor %}";
    assert!(matches!(render(long), Err(ChatTemplateError::TooLong { .. })));
}
