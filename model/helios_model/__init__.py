"""The avatar model: a diffusion transformer with video references, its codec, sampler and bundles. Torch only."""
