"""Physics engines behind one contract: SceneSpec in, batched float32 tensors out."""
