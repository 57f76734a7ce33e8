"""The VoxCPM family in PyTorch. Modules see tensors, never Ray, ranks or paths.

    text, audio ── tokenizer, audio, audio_vae ──> sequences ──> voxcpm ──> flow_matching ──> patches
                                                                  │  local_encoder, transformer,
                                                                  │  quantizer, local_dit
    generation      many requests at once, or one as it comes
    synthesis       speech from text, whole
    losses          what training minimises
    checkpoint      folders in the official layout, read and written; lora beside it

To add a layer, give it a file of its own, or put it beside its only user until a second appears.
Parameter names are the checkpoint format's; a test pins them. "Spec" in docstrings is SPEC.md beside
this file; what was tried and what it gained stands in LOG.md.
"""
