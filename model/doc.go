// Package model is GPT-2: its configuration, its parameters and its training
// graph.
//
// Config is the shape, Params the weights over one arena, Graph the forward and
// backward pass as a Gorgonia graph of fused operations whose buffers are ours.
// Reading and writing model folders is model/checkpoint; the bytes a training
// needs are model/plan; decoding, which does not go through the graph, is
// generate.
package model
