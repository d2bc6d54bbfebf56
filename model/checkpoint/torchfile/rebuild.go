package torchfile

import (
	"promptgen/internal/fault"
	"promptgen/model/checkpoint/blob"
)

// maxDims is the most dimensions that a tensor may have.
const maxDims = 8

// allowed are the names that a pickle may mention, and for storages their type.
var allowed = map[string]blob.DType{
	"collections OrderedDict":         "",
	"torch._utils _rebuild_tensor":    "",
	"torch._utils _rebuild_tensor_v2": "",
	"torch._utils _rebuild_parameter": "",
	"torch FloatStorage":              blob.F32,
	"torch HalfStorage":               blob.F16,
	"torch BFloat16Storage":           blob.BF16,
	"torch DoubleStorage":             blob.F64,
	"torch LongStorage":               blob.I64,
	"torch IntStorage":                blob.I32,
	"torch ShortStorage":              blob.I16,
	"torch CharStorage":               blob.I8,
	"torch ByteStorage":               blob.U8,
	"torch BoolStorage":               blob.Bool,
}

// global pushes one of the allowed names; any other ends the reading.
func (m *machine) global(op byte) error {
	var module, name any
	var err error
	if op == 0x93 { // STACK_GLOBAL
		if name, err = m.pop(); err == nil {
			module, err = m.pop()
		}
	} else if module, err = m.line(); err == nil {
		name, err = m.line()
	}
	if err != nil {
		return err
	}
	a, ok1 := module.(string)
	b, ok2 := name.(string)
	if !ok1 || !ok2 {
		return m.corrupt("it names something by what is no text")
	}
	if _, ok := allowed[a+" "+b]; !ok {
		return fault.Corrupt("%s: asks for %s, which no file of weights needs; it was not run and is refused", m.path, blob.Clip(a+"."+b))
	}
	return m.push(global(a + " " + b))
}

func (m *machine) persistentID() error {
	v, err := m.pop()
	if err != nil {
		return err
	}
	id, ok := v.(tuple)
	if !ok || m.persistent == nil {
		return m.corrupt("a persistent id in it is no storage")
	}
	s, err := m.persistent(id)
	if err != nil {
		return err
	}
	if err := m.spend(64); err != nil {
		return err
	}
	return m.push(s)
}

// reduce "calls" one of the allowed names.
func (m *machine) reduce() error {
	args, err := m.pop()
	if err != nil {
		return err
	}
	f, err := m.pop()
	if err != nil {
		return err
	}
	a, ok := args.(tuple)
	name, isGlobal := f.(global)
	if !ok || !isGlobal {
		return m.corrupt("it calls what cannot be called")
	}
	var v any
	switch name {
	case "collections OrderedDict":
		v, err = m.orderedDict(a)
	case "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2":
		v, err = m.rebuild(a)
	case "torch._utils _rebuild_parameter":
		if len(a) == 0 {
			return m.corrupt("a parameter in it has no tensor")
		}
		if _, ok := a[0].(*tensor); !ok {
			return m.corrupt("a parameter in it has no tensor")
		}
		v = a[0]
	default:
		return m.corrupt("it calls a storage type")
	}
	if err != nil {
		return err
	}
	if err := m.spend(48); err != nil {
		return err
	}
	return m.push(v)
}

// orderedDict makes an empty one, or one of a list of pairs.
func (m *machine) orderedDict(args tuple) (any, error) {
	d := &dict{}
	if len(args) == 0 {
		return d, nil
	}
	l, ok := args[0].(*list)
	if !ok {
		return nil, m.corrupt("a dictionary in it is made of what is no list")
	}
	for _, it := range l.items {
		var pair []any
		switch it := it.(type) {
		case tuple:
			pair = it
		case *list:
			pair = it.items
		}
		if len(pair) != 2 {
			return nil, m.corrupt("a dictionary in it is made of what are no pairs")
		}
		if err := m.fill(d, pair); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// rebuild makes a tensor of (storage, offset, shape, strides, …).
func (m *machine) rebuild(args tuple) (any, error) {
	if len(args) < 4 {
		return nil, m.corrupt("a tensor in it lacks its shape")
	}
	s, ok := args[0].(*storage)
	offset, ok2 := args[1].(int64)
	shape, ok3 := ints(args[2])
	strides, ok4 := ints(args[3])
	if !ok || !ok2 || !ok3 || !ok4 || offset < 0 || len(shape) != len(strides) {
		return nil, m.corrupt("a tensor in it has an impossible shape")
	}
	if err := m.spend(64 + 16*len(shape)); err != nil {
		return nil, err
	}
	return &tensor{s, offset, shape, strides}, nil
}

// ints reads a tuple of sizes, none negative.
func ints(v any) ([]int, bool) {
	t, ok := v.(tuple)
	if !ok {
		return nil, false
	}
	if len(t) > maxDims {
		return nil, false
	}
	out := make([]int, len(t))
	for i, x := range t {
		n, ok := x.(int64)
		if !ok || n < 0 || int64(int(n)) != n {
			return nil, false
		}
		out[i] = int(n)
	}
	return out, true
}

// build gives an object its attributes. A state dictionary has some (the
// version of each module); none matters.
func (m *machine) build() error {
	if _, err := m.pop(); err != nil {
		return err
	}
	v, err := m.top()
	if err != nil {
		return err
	}
	if _, ok := v.(*dict); !ok {
		return m.corrupt("it gives attributes to what has none")
	}
	return nil
}
