"""Training of the AudioVAE: a spectral loss, discriminators that it must convince, and a small KL.

`settings` says how, `trainer` is the loop, `batches` is what it asks of whoever reads the audio,
`evaluation` says how good the result is. Single process; the GPU where there is one. A new
discriminator goes into `discriminators` and its sizes into `settings`.

Sources: DAC (arXiv 2306.06546) for the losses, their weights and the discriminators, VoxCPM (arXiv
2509.24650) for the KL in the place of a quantizer, VoxCPM2 (arXiv 2606.06928) for hearing at one
rate and speaking at another.
"""
