"""Post-training quantisation: no training and no labels, only some images.

One method a file; each changes a calibrated or an uncalibrated student in place, and gives the
same result for the same images. `post_training` runs them in their order.
"""
