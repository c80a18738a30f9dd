"""Every file that the tests write, by the name of its function."""

from tests.formats import other_files, saelens_files, scope_files

WRITTEN = {
    each.__name__: each
    for each in (
        saelens_files.saelens_topk_checkpoint,
        saelens_files.saelens_batchtopk_checkpoint,
        saelens_files.saelens_log_threshold,
        saelens_files.saelens_gated,
        saelens_files.saelens_layer_norm,
        saelens_files.saelens_constant_norm,
        saelens_files.saelens_centred_model,
        saelens_files.saelens_finetuned_v4,
        saelens_files.saelens_skip_transcoder,
        other_files.sparsify,
        other_files.sparsify_transcoder,
        other_files.dl_relu,
        other_files.dl_relu_new,
        other_files.dl_topk,
        other_files.dl_batchtopk,
        other_files.dl_gated,
        other_files.dl_jumprelu,
        scope_files.openai_topk,
        scope_files.openai_tied,
        scope_files.gemma_scope,
        scope_files.gemma_scope_transcoder,
        scope_files.gemma_scope_2,
        scope_files.llama_scope,
        scope_files.r1_distill,
        scope_files.qwen_scope,
        scope_files.goodfire,
        scope_files.deepseek,
        scope_files.circuit_tracer,
        scope_files.llamascopium,
        scope_files.llamascopium_plain,
        scope_files.saev,
    )
}
