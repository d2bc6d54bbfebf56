package model_test

import (
	"fmt"
	"math"

	"promptgen/internal/kernel"
	"promptgen/model"
)

// The graph is one forward and backward pass: before any training the loss is
// that of guessing.
func Example() {
	c := model.Config{VocabSize: 50, NPositions: 8, NCtx: 8, NEmbd: 16, NHead: 2, NLayer: 1, LayerNormEpsilon: 1e-5, InitializerRange: 0.02}
	cpu, err := kernel.New(kernel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cpu.Close()
	params := model.NewParams(c, false)
	params.Init(1)
	graph, err := model.NewGraph(cpu, params, model.GraphOptions{Batch: 1, SeqLen: 8})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer graph.Close()

	ids := []int32{5, 6, 7, 8, 9, 10, 11, 12}
	targets := []int32{6, 7, 8, 9, 10, 11, 12, -1} // the next token; none after the last
	sum, err := graph.Step(ids, targets, 1.0/7, model.DropKey{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.1f nat a token, guessing has %.1f\n", sum/7, math.Log(50))
	fmt.Println(len(graph.Grads().Tensors), "gradients, the first of", graph.Grads().Tensors[0].Name)
	// Output:
	// 4.0 nat a token, guessing has 3.9
	// 16 gradients, the first of transformer.wte.weight
}
