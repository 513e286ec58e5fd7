"""Recommending from an exported model with ONNX Runtime and NumPy; nothing here loads PyTorch."""

from diffgrm.onnx_runtime.recommender import OnnxRecommender, load_onnx

__all__ = ["OnnxRecommender", "load_onnx"]
