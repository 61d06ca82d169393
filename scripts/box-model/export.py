"""Write the trained weights and the vocabulary as a GGUF file, as llama.cpp's converter lays out Phi-3."""

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType

from quantize import quantize_q4_k, quantize_q6_k
from shape import Shape, tensor_shapes
from text import ASSISTANT, END, END_OF_TEXT, SPECIAL_TOKENS, USER
from vocabulary import Vocabulary

QUANTIZERS = {GGMLQuantizationType.Q4_K: quantize_q4_k, GGMLQuantizationType.Q6_K: quantize_q6_k}
SIX_BITS = ("attn_output", "ffn_down", "output")  # what writes to the residual stream or to the logits
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    f"{{% if message['role'] == 'user' %}}{{{{ '{USER}\\n' + message['content'] + '{END}\\n' }}}}"
    f"{{% elif message['role'] == 'assistant' %}}{{{{ '{ASSISTANT}\\n' + message['content'] + '{END}\\n' }}}}"
    "{% endif %}{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{ASSISTANT}\\n' }}}}{{% endif %}}"
)


def tensor_format(name: str) -> GGMLQuantizationType:
    if "norm" in name:
        return GGMLQuantizationType.F32
    return GGMLQuantizationType.Q6_K if name.split(".")[-2] in SIX_BITS else GGMLQuantizationType.Q4_K


def write_gguf(path: str, weights: dict[str, np.ndarray], vocabulary: Vocabulary, shape: Shape) -> None:
    """Quantises every matrix and writes the file; the same input gives the same bytes."""
    writer = GGUFWriter(path, "phi3")
    writer.add_type("model")
    writer.add_name("worker-orcd box")
    writer.add_description("A very small model of composed stories and facts, made by scripts/box-model")
    writer.add_license("MIT OR Apache-2.0")
    writer.add_size_label(f"{sum(w.size for w in weights.values()) / 1e6:.1f}M")
    writer.add_context_length(shape.context)
    writer.add_rope_scaling_orig_ctx_len(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_quantization_version(2)
    add_tokenizer(writer, vocabulary)
    for name in tensor_shapes(shape):
        kind = tensor_format(name)
        if kind == GGMLQuantizationType.F32:
            writer.add_tensor(name, weights[name].astype(np.float32))
        else:
            writer.add_tensor(name, QUANTIZERS[kind](weights[name]), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    control = set(SPECIAL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([TokenType.CONTROL if t in control else TokenType.NORMAL for t in vocabulary.tokens])
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.id_of(END_OF_TEXT))
    writer.add_eos_token_id(vocabulary.id_of(END_OF_TEXT))
    writer.add_eot_token_id(vocabulary.id_of(END))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
