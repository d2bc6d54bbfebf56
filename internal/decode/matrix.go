package decode

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"promptgen/internal/half"
	"promptgen/internal/kernel"
)

// Matrix is weights [K, N], packed.
type Matrix struct {
	DType kernel.DType
	K, N  int

	f       *format
	steps   int
	data    []byte   // panels
	patches *patches // where panels are squeezed, else nil
}

// Part is at most 32 columns of a matrix [K, N], in one of three forms.
type Part struct {
	// Blocks is column after column in the matrix's quantized dtype, as GGUF has
	// it: blocks of an fp16 scale and 32 values in 8 or 4 bits.
	Blocks []byte

	// Rows has value k of column j at k*LD+j; Columns has it at j*K+k.
	Rows    []float32
	LD      int
	Columns []float32
}

// Parts gives columns [lo,hi) of a matrix. What it returns is used until its
// next call with the same worker, and calls with different workers may run
// together.
type Parts func(worker, lo, hi int) (Part, error)

// PackedBytes is the most memory that a matrix takes.
func PackedBytes(d kernel.DType, k, n int) int {
	f := goKernels().format(d)
	return (n + panelCols - 1) / panelCols * f.steps(k) * f.bStep
}

// Pack lays out the weights of a matrix [k, n], in PackedBytes of mem. For
// quantized dtypes k must be a multiple of 32. A value that is not finite is an
// error.
func (u *Unit) Pack(mem *Memory, d kernel.DType, k, n int, parts Parts) (*Matrix, error) {
	m := &Matrix{DType: d, K: k, N: n, f: u.k.format(d)}
	if d == kernel.FP16 {
		return nil, fmt.Errorf("weights cannot be multiplied as %v", d)
	}
	if m.f.unit == BlockLen && k%BlockLen != 0 {
		return nil, fmt.Errorf("rows of %d weights cannot be cut into the blocks of %d that %v has", k, BlockLen, d)
	}
	m.steps = m.f.steps(k)
	panels := (n + panelCols - 1) / panelCols
	m.data = mem.Take(PackedBytes(d, k, n))
	if k := m.f.squeezing; k != nil && k.panelBytes(m.steps) < m.steps*m.f.bStep {
		m.patches = patchesOf(panels, d, len(m.data))
	}
	err := u.packPanels(m, panels, parts)
	if errors.Is(err, errVaried) {
		m.patches = nil
		err = u.packPanels(m, panels, parts)
	}
	if err != nil {
		return nil, err
	}
	m.data = m.data[:panels*m.panelBytes()]
	mem.Trim(len(m.data))
	return m, nil
}

// packPanels packs all panels until one fails.
func (u *Unit) packPanels(m *Matrix, panels int, parts Parts) (fail error) {
	var once sync.Once
	u.cpu.Each(panels, func(worker, p int) {
		if m.patches != nil && m.patches.tooMany() {
			return // the panel in which that was found says so
		}
		lo, hi := p*panelCols, min((p+1)*panelCols, m.N)
		part, err := parts(worker, lo, hi)
		if err == nil {
			err = u.packPart(&u.per[worker], m, part, lo, hi)
		}
		if err != nil {
			once.Do(func() { fail = err })
		}
	})
	return fail
}

// packPart packs columns [lo,hi).
func (u *Unit) packPart(s *scratch, m *Matrix, part Part, lo, hi int) error {
	panel := m.panel(lo / panelCols)
	if part.Blocks != nil {
		return m.fill(panel, part.Blocks, lo, hi-lo)
	}
	rows, ld := part.Rows, part.LD
	if rows == nil || hi-lo < panelCols || m.K%m.f.unit > 0 {
		ld = panelCols
		rows = grow(&s.tile, m.steps*m.f.unit*ld)
		clear(rows)
		if part.Rows != nil {
			for k := range m.K {
				copy(rows[k*ld:][:hi-lo], part.Rows[k*part.LD:])
			}
		} else {
			turn(rows, part.Columns, m.K, hi-lo)
		}
	}
	wide := panel
	if m.patches != nil {
		wide = s.room(m.f.squeezing.wideBytes(m.steps))
	}
	top := m.f.pack(m.steps, &rows[0], 4*ld, &wide[0])
	if !m.holds(math.Float32frombits(top)) {
		return m.refuse(rows, ld, lo, hi)
	}
	if m.patches != nil {
		clear(wide[m.steps*m.f.bStep:])
		p := m.squeezed(lo / panelCols)
		return m.patches.set(lo/panelCols, p.squeeze(s, wide, hi-lo))
	}
	return nil
}

// holds tells whether weights up to this magnitude are finite as m stores them.
func (m *Matrix) holds(largest float32) bool {
	switch m.DType {
	case kernel.BF16:
		largest = half.RoundBF16(largest)
	case kernel.Q8_0:
		largest = half.FromFP16(half.ToFP16(largest / 127))
	case kernel.Q4_0:
		largest = half.FromFP16(half.ToFP16(largest / q4Zero))
	}
	return largest-largest == 0
}

// refuse says what is wrong with columns [lo,hi), which lie in rows.
func (m *Matrix) refuse(rows []float32, ld, lo, hi int) error {
	for j := range hi - lo {
		for k := range m.K {
			if v := rows[k*ld+j]; v-v != 0 {
				return fmt.Errorf("value %d of column %d is not finite", k, lo+j)
			}
		}
	}
	return fmt.Errorf("columns %d to %d hold values that are too large for %v", lo, hi-1, m.DType)
}

// turn makes rows of 32 of n columns of k values. It goes over small squares, so
// that what is written stays in the first cache.
func turn(rows, columns []float32, k, n int) {
	const side = 16
	for r := 0; r < k; r += side {
		for j := range n {
			for i, v := range columns[j*k+r : j*k+min(k, r+side)] {
				rows[(r+i)*panelCols+j] = v
			}
		}
	}
}

// Columns is columns [lo,hi) of m, which shares its memory; nil if they do not
// begin with a panel.
func (m *Matrix) Columns(lo, hi int) *Matrix {
	if lo%panelCols > 0 {
		return nil
	}
	part, size := *m, m.panelBytes()
	first, end := lo/panelCols, (hi+panelCols-1)/panelCols
	part.N, part.data = hi-lo, m.data[first*size:end*size]
	if m.patches != nil {
		part.patches = &patches{of: m.patches.of[first:end]}
	}
	return &part
}

// Bytes is what the weights take, and what a product reads.
func (m *Matrix) Bytes() int {
	n := len(m.data)
	if m.patches != nil {
		n += int(m.patches.bytes.Load())
	}
	return n
}

func (m *Matrix) panel(p int) []byte {
	size := m.panelBytes()
	return m.data[p*size : (p+1)*size]
}

func (m *Matrix) panelBytes() int {
	if m.patches != nil {
		return m.f.squeezing.panelBytes(m.steps)
	}
	return m.steps * m.f.bStep
}

// fill packs the blocks of n columns, of which first is the number of the first,
// into a panel.
func (m *Matrix) fill(panel, blocks []byte, first, n int) error {
	const inf = 0x7c00
	flip, size := uint32(0x80808080), 2+BlockLen
	if m.DType == kernel.Q4_0 {
		flip, size = 0, 2+BlockLen/2
	}
	for j := range n {
		for s := range m.steps {
			from := blocks[(j*m.steps+s)*size:][:size]
			if le.Uint16(from)&inf == inf {
				return fmt.Errorf("the scale of value %d of column %d is not finite", s*BlockLen, first+j)
			}
			to := panel[s*m.f.bStep:][:m.f.bStep]
			copy(to[2*j:][:2], from)
			to, from = to[scaleBytes+4*j:], from[2:]
			for w := 0; len(from) >= 4; w, from = w+1, from[4:] {
				le.PutUint32(to[w*4*panelCols:], le.Uint32(from)^flip)
			}
		}
	}
	return nil
}

// Column sets dst [K] to column j, as float32: what an embedding looks up in the
// transposed table.
func (m *Matrix) Column(dst []float32, j int) {
	panel, c := m.panel(j/panelCols), j%panelCols
	if m.patches != nil {
		p := m.squeezed(j / panelCols)
		p.column(dst, c)
		return
	}
	switch m.DType {
	case kernel.FP32:
		for k := range dst {
			dst[k] = math.Float32frombits(le.Uint32(panel[(k*panelCols+c)*4:]))
		}
	case kernel.BF16:
		for k := range dst {
			dst[k] = math.Float32frombits(uint32(le.Uint16(panel[(k/2*panelCols+c)*4+k%2*2:])) << 16)
		}
	case kernel.Q8_0:
		for k := range dst {
			b := panel[k/BlockLen*q8Bytes:]
			q := int(b[scaleBytes+(k%BlockLen/4*panelCols+c)*4+k%4]) - q8Zero
			dst[k] = half.FromFP16(le.Uint16(b[2*c:])) * float32(q)
		}
	case kernel.Q4_0:
		for k := range dst {
			b, i := panel[k/BlockLen*q4Bytes:], k%BlockLen
			q := b[scaleBytes+(i%16/4*panelCols+c)*4+i%4] >> (i / 16 * 4) & 15
			dst[k] = half.FromFP16(le.Uint16(b[2*c:])) * float32(int(q)-q4Zero)
		}
	}
}
