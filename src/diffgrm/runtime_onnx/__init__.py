"""Recommending from an exported model with ONNX Runtime; nothing here loads PyTorch."""

from diffgrm.runtime_onnx.recommender import OnnxRecommender, load_onnx

__all__ = ["OnnxRecommender", "load_onnx"]
