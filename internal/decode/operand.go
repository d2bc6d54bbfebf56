package decode

import (
	"unsafe"

	"promptgen/internal/kernel"
)

// Operand is rows of activations in the form that a format's products want.
type Operand struct {
	f      *format
	zero   int // of the weights it meets
	stride int // bytes between rows
	data   []byte
}

// Shape prepares op for m rows of k values, which Set then gives.
func (u *Unit) Shape(op *Operand, d kernel.DType, m, k int) {
	zero := q8Zero
	if d == kernel.Q4_0 {
		zero = q4Zero
	}
	op.shape(u.k.format(d), zero, m, k)
}

func (op *Operand) shape(f *format, zero, m, k int) {
	op.f, op.zero, op.stride = f, zero, f.stride(k)
	if len(op.data) < m*op.stride {
		op.data = aligned(m * op.stride)
	}
}

// stride is what a row of k values takes: rows a power of two apart would fall into
// the same lines of the cache.
func (f *format) stride(k int) int { return roundUp(f.steps(k)*f.aStep, lineBytes) + lineBytes }

// OperandBytes is what an operand of that shape takes.
func (u *Unit) OperandBytes(d kernel.DType, m, k int) int { return m * u.k.format(d).stride(k) }

// Use has op lie in b, which begins with a cache line, as long as that suffices.
func (op *Operand) Use(b []byte) { op.data = b }

// steps is the number of steps of k values, the last filled up with zeros.
func (f *format) steps(k int) int { return (k + f.unit - 1) / f.unit }

// Set converts x, a row of as many values as Shape was told. Rows may be set by
// several threads together.
func (u *Unit) Set(op *Operand, r int, x []float32) { u.setPart(op, r, 0, x) }

// Floats is the rows of an operand that keeps values as they are, ld floats apart,
// to be filled in instead of Set; nil if this one converts them.
func (u *Unit) Floats(op *Operand) (rows []float32, ld int) {
	if op.f != &u.k.f32 {
		return nil, 0
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(op.data))), len(op.data)/4), op.stride / 4
}

// setPart sets the values of row r from value from on, a multiple of BlockLen.
func (u *Unit) setPart(op *Operand, r, from int, x []float32) {
	to := op.data[r*op.stride+from/op.f.unit*op.f.aStep:][:op.f.steps(len(x))*op.f.aStep]
	if words := op.f.aStep == wordsStep; words || op.f == &u.k.f32 {
		floats := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(to))), len(to)/4)
		clear(floats[copy(floats, x):])
		if words {
			u.cpu.RowRound(floats)
		}
		return
	}
	whole := len(x) / BlockLen * BlockLen
	u.convert(op, to, x[:whole])
	if rest := x[whole:]; len(rest) > 0 {
		var pad [BlockLen]float32
		var end [lineBytes]byte
		copy(pad[:], rest)
		u.convert(op, end[:], pad[:])
		copy(to[whole/op.f.unit*op.f.aStep:], end[:])
	}
}

// convert does whole blocks.
func (u *Unit) convert(op *Operand, to []byte, x []float32) {
	switch {
	case len(x) == 0:
	case op.f == &u.k.bf16:
		u.k.round(len(x), &x[0], &to[0])
	default:
		u.k.quantize(len(x)/BlockLen, &x[0], &to[0], op.zero)
	}
}

// at is where step s of row r lies.
func (op *Operand) at(r, s int) *byte { return ptr(op.data, r*op.stride+s*op.f.aStep) }

// ptr is the address of b[i], for the micro-kernels.
func ptr(b []byte, i int) *byte {
	return (*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i))
}

func floatPtr(s []float32, i int) *float32 {
	return (*float32)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(s)), 4*i))
}
