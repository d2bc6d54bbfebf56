package autodiff_test

import (
	"errors"
	"strings"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"promptgen/internal/autodiff"
)

func vector(data ...float32) *tensor.Dense {
	return tensor.New(tensor.WithShape(len(data)), tensor.WithBacking(data))
}

func input(g *gorgonia.ExprGraph, name string, v gorgonia.Value) *gorgonia.Node {
	return gorgonia.NewVector(g, tensor.Float32, gorgonia.WithName(name), gorgonia.WithShape(v.Shape()...), gorgonia.WithValue(v))
}

// scaled is x*w, element by element, then summed: two operations, the first
// with two gradients (so that there is a pick node).
type scaled struct {
	x, w, y, dx, dw, dy *tensor.Dense
	sum                 *gorgonia.F32
	cost                *gorgonia.Node
	g                   *gorgonia.ExprGraph
	vm                  gorgonia.VM
	xn, wn              *gorgonia.Node
}

func floats(v gorgonia.Value) []float32 { return v.Data().([]float32) }

func newScaled(t *testing.T, forward func() error) *scaled {
	t.Helper()
	s := &scaled{x: vector(1, 2, 3), w: vector(4, 5, 6), y: vector(0, 0, 0),
		dx: vector(0, 0, 0), dw: vector(0, 0, 0), dy: vector(0, 0, 0), sum: gorgonia.NewF32(0), g: gorgonia.NewGraph()}
	s.xn, s.wn = input(s.g, "x", s.x), input(s.g, "w", s.w)
	if forward == nil {
		forward = func() error {
			for i := range floats(s.y) {
				floats(s.y)[i] = floats(s.x)[i] * floats(s.w)[i]
			}
			return nil
		}
	}
	y, err := autodiff.Apply(autodiff.Op{Name: "times", Out: s.y, Grads: []gorgonia.Value{s.dx, s.dw}, Forward: forward,
		Backward: func(dy gorgonia.Value) error {
			for i, d := range floats(dy) {
				floats(s.dx)[i] = d * floats(s.w)[i]
				floats(s.dw)[i] = d * floats(s.x)[i]
			}
			return nil
		}}, s.xn, s.wn)
	if err != nil {
		t.Fatal(err)
	}
	s.cost, err = autodiff.Apply(autodiff.Op{Name: "sum", Out: s.sum, Grads: []gorgonia.Value{s.dy},
		Forward: func() error {
			*s.sum = 0
			for _, v := range floats(s.y) {
				*s.sum += gorgonia.F32(v)
			}
			return nil
		},
		Backward: func(gorgonia.Value) error {
			for i := range floats(s.dy) {
				floats(s.dy)[i] = 1
			}
			return nil
		}}, y)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gorgonia.Grad(s.cost, s.xn, s.wn); err != nil {
		t.Fatal(err)
	}
	s.vm = gorgonia.NewTapeMachine(s.g)
	t.Cleanup(func() { s.vm.Close() })
	return s
}

// A graph runs again and again with new inputs, and the gradients that the
// solver gets are our own buffers.
func TestForwardBackwardPick(t *testing.T) {
	s := newScaled(t, nil)
	for run := range 3 {
		floats(s.x)[0] = float32(run)
		if err := s.vm.RunAll(); err != nil {
			t.Fatal(err)
		}
		s.vm.Reset()
		if want := gorgonia.F32(4*run + 10 + 18); *s.sum != want {
			t.Errorf("run %d: %v, want %v", run, *s.sum, want)
		}
		for n, want := range map[*gorgonia.Node]*tensor.Dense{s.xn: s.dx, s.wn: s.dw} {
			if got, err := n.Grad(); err != nil || got != gorgonia.Value(want) {
				t.Errorf("gradient of %s is not our buffer (%v)", n.Name(), err)
			}
		}
		if floats(s.dw)[0] != float32(run) || floats(s.dx)[2] != 6 {
			t.Errorf("run %d: gradients %v %v", run, s.dx, s.dw)
		}
	}
}

// Errors and panics inside an operation are errors of the run, in one line that
// names it and, of a panic, the place.
func TestErrorsAndPanicsComeBack(t *testing.T) {
	for want, forward := range map[string]func() error{
		"times: broken": func() error { return errors.New("broken") },
		"times: internal error: broken (autodiff_test.go:": func() error { panic("broken") },
	} {
		err := newScaled(t, forward).vm.RunAll()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// An operation without gradients cannot be differentiated, and says so.
func TestNoDerivative(t *testing.T) {
	g := gorgonia.NewGraph()
	x := input(g, "x", vector(1, 2))
	y, err := autodiff.Apply(autodiff.Op{Name: "constant", Out: gorgonia.NewF32(1), Forward: func() error { return nil }}, x)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gorgonia.Grad(y, x); err == nil {
		t.Error("was differentiated")
	}
	if _, err := autodiff.Apply(autodiff.Op{Name: "odd", Out: gorgonia.NewF32(1), Grads: make([]gorgonia.Value, 3)}, x); err == nil {
		t.Error("three gradients for one input were taken")
	}
}
