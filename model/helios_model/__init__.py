"""The avatar model: a diffusion transformer with video references, its codec, its sampler and its bundles. Torch only."""
