"""Post-training quantisation, which needs some images but neither training nor labels.

Each file has one method, which changes a student in place; the same images always give the same
result. `post_training` runs all methods in order.
"""
