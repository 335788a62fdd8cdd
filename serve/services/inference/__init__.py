"""The Open Inference Protocol, version 2, with Triton's extensions, in front of the data plane.

service   the servicer: a call in, a reply out
models    the three models that a bundle is to such clients
tensors   tensors of requests and replies to arrays and back
options   parameters of requests and replies
messages  what is said of models, made once for each
"""
