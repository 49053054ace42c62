"""How a network is made: checkpoint, tfjs graph, ONNX, precision. Runs when a model is loaded.

network.py joins the steps; heavy packages (onnx, onnxruntime) are imported where a step needs them.
"""
