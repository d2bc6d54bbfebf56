// Package autodiff is the seam to Gorgonia: the one Op type that the model's
// graph is made of.
//
// Gorgonia builds the expression graph, differentiates it symbolically, orders
// it and runs it. What it is not good at is memory and arithmetic: a GPT-2 of
// its stock operations allocates half a million objects a step. So the nodes
// here are few and coarse (a whole attention sublayer is one), own their
// result, and compute by closures over buffers of the caller's:
//
//	y, err := autodiff.Apply(autodiff.Op{
//		Name:     "double",
//		Out:      yValue,                      // Forward fills it
//		Grads:    []gorgonia.Value{dx},        // Backward fills them, one for each input
//		Forward:  func() error { … },
//		Backward: func(dy gorgonia.Value) error { … },
//	}, x)
//
// A Gorgonia operation has one output, a backward pass has many. The backward
// node therefore fills all gradients at once and its own value is the first of
// them; "pick" nodes, which compute nothing, hand out the others.
//
// Two rules keep a graph of such nodes right. A node must be the input of only
// one differentiable operation: two gradients for one node would be added by a
// stock operation, into memory that is not ours (keep x + f(x) inside one Op).
// And an Op whose Grads share a buffer with its upstream gradient works in
// place, which is sound exactly because of the first rule.
package autodiff

import (
	"fmt"
	"hash"
	"hash/fnv"
	"sync/atomic"

	"promptgen/internal/fault"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Op is one fused operation and its derivative.
type Op struct {
	Name string
	// Out is the value of the node; it is the caller's memory and stays the
	// same from run to run. Its type must be float32.
	Out gorgonia.Value
	// Grads has one value for each input: the buffer that receives the gradient
	// with respect to it, or nil for an input without one (token ids). All nil,
	// or no Grads at all: the operation has no derivative.
	Grads []gorgonia.Value
	// Forward computes Out.
	Forward func() error
	// Backward fills Grads. dy is the gradient of the result that reaches this
	// node.
	Backward func(dy gorgonia.Value) error
}

// Apply adds the operation to the graph of its inputs and returns its node.
func Apply(o Op, inputs ...*gorgonia.Node) (*gorgonia.Node, error) {
	if len(o.Grads) != 0 && len(o.Grads) != len(inputs) {
		return nil, fmt.Errorf("%s: %d gradients for %d inputs", o.Name, len(o.Grads), len(inputs))
	}
	n := newNode(o.Name, inputs, o.Out, func([]gorgonia.Value) error { return o.Forward() })
	n.grads, n.backward = o.Grads, o.Backward
	return gorgonia.ApplyOp(n, inputs...)
}

// nodeOp implements gorgonia.SDOp for forward, backward and pick nodes alike.
type nodeOp struct {
	id     uint64
	name   string
	inputs []hm.Type
	out    gorgonia.Value
	run    func(in []gorgonia.Value) error // nil: out is filled by somebody else

	grads    []gorgonia.Value
	backward func(dy gorgonia.Value) error
}

var _ gorgonia.SDOp = (*nodeOp)(nil)

// lastID numbers the nodes of a process, so that no two are ever taken for the
// same expression.
var lastID atomic.Uint64

func newNode(name string, inputs []*gorgonia.Node, out gorgonia.Value, run func([]gorgonia.Value) error) *nodeOp {
	// The inputs' concrete types: type variables are unified wrongly when an
	// operation has several inputs of different shapes.
	types := make([]hm.Type, len(inputs))
	for i, n := range inputs {
		types[i] = n.Type()
	}
	return &nodeOp{id: lastID.Add(1), name: name, inputs: types, out: out, run: run}
}

// Arity is the number of inputs.
func (o *nodeOp) Arity() int { return len(o.inputs) }

// Type is inputs → output. Gorgonia changes the type it is given, hence a fresh
// one for each call.
func (o *nodeOp) Type() hm.Type {
	types := append(make([]hm.Type, 0, len(o.inputs)+1), o.inputs...)
	if d := o.out.Shape().Dims(); d > 0 {
		types = append(types, gorgonia.TensorType{Dims: d, Of: tensor.Float32})
	} else {
		types = append(types, tensor.Float32)
	}
	return hm.NewFnType(types...)
}

// InferShape is the shape of the buffer, whatever the inputs.
func (o *nodeOp) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) {
	return o.out.Shape(), nil
}

// Do runs the node. The machine calls it on a goroutine of its own, where a
// panic could not be recovered by whoever runs the graph: it becomes an error
// here.
func (o *nodeOp) Do(in ...gorgonia.Value) (v gorgonia.Value, err error) {
	defer func() {
		if r := recover(); r != nil {
			v, err = nil, fmt.Errorf("%s: %w", o.name, fault.Panicked(r))
		}
	}()
	if o.run != nil {
		if err := o.run(in); err != nil {
			return nil, fmt.Errorf("%s: %w", o.name, err)
		}
	}
	return o.out, nil
}

// The machine must neither reuse our buffer for another node nor hand us one.
func (o *nodeOp) ReturnsPtr() bool     { return false }
func (o *nodeOp) CallsExtern() bool    { return false }
func (o *nodeOp) OverwritesInput() int { return -1 }

// WriteHash makes every node unique: common subexpressions are found by a
// 32-bit hash of this, and two of our nodes are never common.
func (o *nodeOp) WriteHash(h hash.Hash) { fmt.Fprintf(h, "%s#%d", o.name, o.id) }

// Hashcode is the hash of WriteHash.
func (o *nodeOp) Hashcode() uint32 {
	h := fnv.New32a()
	o.WriteHash(h)
	return h.Sum32()
}

func (o *nodeOp) String() string { return fmt.Sprintf("%s#%d", o.name, o.id) }

// DiffWRT tells which inputs have a gradient.
func (o *nodeOp) DiffWRT(inputs int) []bool {
	wrt := make([]bool, inputs)
	for i, g := range o.grads {
		wrt[i] = g != nil
	}
	return wrt
}

// SymDiff adds the backward node and its picks.
func (o *nodeOp) SymDiff(inputs gorgonia.Nodes, output, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	diffs := make(gorgonia.Nodes, len(inputs))
	var back *gorgonia.Node
	for i, g := range o.grads {
		if g == nil {
			continue
		}
		var err error
		if back == nil {
			// The inputs and the output are named as inputs so that the backward
			// node runs after them; it reads them through its own buffers.
			all := append(gorgonia.Nodes{grad, output}, inputs...)
			b := newNode(o.name+"'", all, g, func(in []gorgonia.Value) error { return o.backward(in[0]) })
			back, err = gorgonia.ApplyOp(b, all...)
			diffs[i] = back
		} else {
			p := newNode(fmt.Sprintf("%s'[%d]", o.name, i), gorgonia.Nodes{back}, g, nil)
			diffs[i], err = gorgonia.ApplyOp(p, back)
		}
		if err != nil {
			return nil, err
		}
	}
	if back == nil {
		return nil, fmt.Errorf("%s has no derivative", o.name)
	}
	return diffs, nil
}
