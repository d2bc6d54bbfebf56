package torchfile

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint/blob"
)

// A pickle is a program for a small stack machine, and Python's runs anything
// that it names. This one knows the instructions that a dictionary of tensors
// needs, over a handful of harmless kinds of value; the names it accepts are
// listed in allowed, and what "calling" one does is written out in reduce.
// Nothing else exists here, so nothing else can happen.

// Limits of a pickle. A GPT-2 of the largest shape stays far below them.
const (
	maxStack = 1 << 16
	maxMemo  = 1 << 20
)

// The values on the stack. None, bools and strings are Go's own; integers are
// int64 (a larger one is refused, but for the format's magic number).
type (
	mark  struct{}
	tuple []any
	// list and dict are shared by all references to them, as in Python.
	list struct{ items []any }
	dict struct{ keys, values []any }
	// global is one of the allowed names.
	global string
	// storage is a block of bytes that tensors are views of.
	storage struct {
		key   string
		dtype blob.DType
		elems int64
	}
	// tensor is a view of a storage.
	tensor struct {
		storage *storage
		offset  int64 // in elements
		shape   []int
		strides []int
	}
)

// magicNumber opens a legacy file; it does not fit an int64.
type magicNumber struct{}

var magicBytes = []byte{0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19}

// machine runs one pickle.
type machine struct {
	path  string
	in    []byte
	pos   int
	stack []any
	memo  []any
	// budget is what may still be allocated: a pickle of n bytes describes
	// about that much, whatever it claims.
	budget int
	// persistent resolves a persistent id (a storage).
	persistent func(id tuple) (*storage, error)
}

func newMachine(path string, in []byte, persistent func(tuple) (*storage, error)) *machine {
	return &machine{path: path, in: in, budget: 2*len(in) + 8<<20, persistent: persistent}
}

func (m *machine) corrupt(what string) error {
	return fault.Corrupt("%s: %s (at byte %d of its pickle); it is damaged, or no plain dictionary of tensors", m.path, what, m.pos)
}

// run executes up to STOP and returns what is then on top.
func (m *machine) run() (any, error) {
	for {
		b, err := m.next(1)
		if err != nil {
			return nil, err
		}
		if b[0] == '.' {
			return m.pop()
		}
		if err := m.step(b[0]); err != nil {
			return nil, err
		}
		if len(m.stack) > maxStack {
			return nil, m.corrupt("its stack grows without end")
		}
	}
}

// next takes n bytes of the program.
func (m *machine) next(n int) ([]byte, error) {
	if n < 0 || n > len(m.in)-m.pos {
		return nil, m.corrupt("it ends in the middle")
	}
	b := m.in[m.pos : m.pos+n]
	m.pos += n
	return b, nil
}

// line takes the bytes up to a line feed.
func (m *machine) line() (string, error) {
	i := bytes.IndexByte(m.in[m.pos:], '\n')
	if i < 0 {
		return "", m.corrupt("it ends in the middle")
	}
	b, _ := m.next(i + 1)
	return string(b[:i]), m.spend(i)
}

// spend takes from the budget.
func (m *machine) spend(n int) error {
	if m.budget -= n + 16; m.budget < 0 {
		return m.corrupt("it asks for more memory than its length justifies")
	}
	return nil
}

func (m *machine) push(v any) error {
	m.stack = append(m.stack, v)
	return m.spend(0)
}

func (m *machine) pop() (any, error) {
	if len(m.stack) == 0 {
		return nil, m.corrupt("it takes from an empty stack")
	}
	v := m.stack[len(m.stack)-1]
	m.stack = m.stack[:len(m.stack)-1]
	return v, nil
}

func (m *machine) top() (any, error) {
	if len(m.stack) == 0 {
		return nil, m.corrupt("it looks at an empty stack")
	}
	return m.stack[len(m.stack)-1], nil
}

// popMark takes everything above the last mark, and the mark.
func (m *machine) popMark() ([]any, error) {
	for i := len(m.stack) - 1; i >= 0; i-- {
		if _, ok := m.stack[i].(mark); ok {
			items := append([]any(nil), m.stack[i+1:]...)
			m.stack = m.stack[:i]
			return items, m.spend(16 * len(items))
		}
	}
	return nil, m.corrupt("it has no mark to go back to")
}

// step executes one instruction.
func (m *machine) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		b, err := m.next(1)
		if err == nil && b[0] > 5 {
			err = m.corrupt("its protocol is newer than any known")
		}
		return err
	case 0x95: // FRAME
		_, err := m.next(8)
		return err
	case '(':
		return m.push(mark{})
	case '0':
		_, err := m.pop()
		return err
	case '1':
		_, err := m.popMark()
		return err
	case 'N':
		return m.push(nil)
	case 0x88, 0x89:
		return m.push(op == 0x88)
	case 'K', 'M', 'J', 'I', 'L', 0x8a, 'G':
		return m.number(op)
	case 'X', 0x8c, 0x8d, 'U', 'T', 'V':
		return m.text(op)
	case ')', 't', 0x85, 0x86, 0x87:
		return m.makeTuple(op)
	case ']', 'l':
		return m.makeList(op)
	case '}', 'd':
		return m.makeDict(op)
	case 'a', 'e':
		return m.appendTo(op)
	case 's', 'u':
		return m.setItems(op)
	case 'q', 'r', 'p', 0x94:
		return m.put(op)
	case 'h', 'j', 'g':
		return m.get(op)
	case 'c', 0x93:
		return m.global(op)
	case 'Q':
		return m.persistentID()
	case 'R':
		return m.reduce()
	case 'b':
		return m.build()
	}
	return m.corrupt("its instruction " + strconv.QuoteRune(rune(op)) + " is not allowed")
}

func (m *machine) number(op byte) error {
	sizes := map[byte]int{'K': 1, 'M': 2, 'J': 4, 'G': 8}
	le := binary.LittleEndian
	switch op {
	case 'I', 'L':
		s, err := m.line()
		if err != nil {
			return err
		}
		if op == 'I' && (s == "00" || s == "01") {
			return m.push(s == "01")
		}
		if n := len(s); op == 'L' && n > 0 && s[n-1] == 'L' {
			s = s[:n-1]
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return m.corrupt("a number in it is none")
		}
		return m.push(n)
	case 0x8a: // LONG1
		b, err := m.next(1)
		if err != nil {
			return err
		}
		return m.long(int(b[0]))
	}
	b, err := m.next(sizes[op])
	if err != nil {
		return err
	}
	switch op {
	case 'K':
		return m.push(int64(b[0]))
	case 'M':
		return m.push(int64(le.Uint16(b)))
	case 'J':
		return m.push(int64(int32(le.Uint32(b))))
	}
	return m.push(nil) // BINFLOAT: no field that we look at is one
}

// long pushes a little-endian two's complement number of n bytes.
func (m *machine) long(n int) error {
	b, err := m.next(n)
	if err != nil {
		return err
	}
	if bytes.Equal(b, magicBytes) {
		return m.push(magicNumber{})
	}
	if n > 8 {
		return m.corrupt("a number in it is too large")
	}
	var v uint64
	for i, c := range b {
		v |= uint64(c) << (8 * i)
	}
	shift := 64 - 8*n
	if n == 0 {
		return m.push(int64(0))
	}
	return m.push(int64(v<<shift) >> shift)
}

func (m *machine) text(op byte) error {
	sizes := map[byte]int{0x8c: 1, 'U': 1, 'X': 4, 'T': 4, 0x8d: 8}
	if op == 'V' {
		s, err := m.line()
		if err != nil {
			return err
		}
		return m.push(s)
	}
	b, err := m.next(sizes[op])
	if err != nil {
		return err
	}
	var full [8]byte
	copy(full[:], b)
	n := binary.LittleEndian.Uint64(full[:])
	if n > uint64(len(m.in)) {
		return m.corrupt("a string in it is longer than the file")
	}
	s, err := m.next(int(n))
	if err != nil {
		return err
	}
	if err := m.spend(len(s)); err != nil {
		return err
	}
	return m.push(string(s))
}

func (m *machine) makeTuple(op byte) error {
	n := 0
	switch op {
	case ')':
		return m.push(tuple(nil))
	case 't':
		items, err := m.popMark()
		if err != nil {
			return err
		}
		return m.push(tuple(items))
	case 0x85:
		n = 1
	case 0x86:
		n = 2
	case 0x87:
		n = 3
	}
	items := make(tuple, n)
	for i := n - 1; i >= 0; i-- {
		v, err := m.pop()
		if err != nil {
			return err
		}
		items[i] = v
	}
	if err := m.spend(24 + 16*n); err != nil {
		return err
	}
	return m.push(items)
}

func (m *machine) makeList(op byte) error {
	l := &list{}
	if op == 'l' {
		items, err := m.popMark()
		if err != nil {
			return err
		}
		l.items = items
	}
	if err := m.spend(24); err != nil {
		return err
	}
	return m.push(l)
}

func (m *machine) makeDict(op byte) error {
	d := &dict{}
	if op == 'd' {
		items, err := m.popMark()
		if err != nil {
			return err
		}
		if err := m.fill(d, items); err != nil {
			return err
		}
	}
	if err := m.spend(48); err != nil {
		return err
	}
	return m.push(d)
}

// values takes the operands of a …S instruction: one group, or all above the
// mark.
func (m *machine) values(single bool, n int) ([]any, error) {
	if !single {
		return m.popMark()
	}
	items := make([]any, n)
	for i := n - 1; i >= 0; i-- {
		v, err := m.pop()
		if err != nil {
			return nil, err
		}
		items[i] = v
	}
	return items, nil
}

func (m *machine) appendTo(op byte) error {
	items, err := m.values(op == 'a', 1)
	if err != nil {
		return err
	}
	v, err := m.top()
	if err != nil {
		return err
	}
	l, ok := v.(*list)
	if !ok {
		return m.corrupt("it appends to what is no list")
	}
	l.items = append(l.items, items...)
	return m.spend(32 * len(items))
}

func (m *machine) setItems(op byte) error {
	items, err := m.values(op == 's', 2)
	if err != nil {
		return err
	}
	v, err := m.top()
	if err != nil {
		return err
	}
	d, ok := v.(*dict)
	if !ok {
		return m.corrupt("it sets an item of what is no dictionary")
	}
	return m.fill(d, items)
}

func (m *machine) fill(d *dict, items []any) error {
	if len(items)%2 != 0 {
		return m.corrupt("a key in it has no value")
	}
	for i := 0; i < len(items); i += 2 {
		d.keys = append(d.keys, items[i])
		d.values = append(d.values, items[i+1])
	}
	return m.spend(48 * len(items))
}

// memoIndex reads the operand of a PUT or GET.
func (m *machine) memoIndex(op byte) (int, error) {
	switch op {
	case 'q', 'h':
		b, err := m.next(1)
		if err != nil {
			return 0, err
		}
		return int(b[0]), nil
	case 'r', 'j':
		b, err := m.next(4)
		if err != nil {
			return 0, err
		}
		return int(binary.LittleEndian.Uint32(b)), nil
	}
	s, err := m.line()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, m.corrupt("a memo index in it is no number")
	}
	return int(n), nil
}

func (m *machine) put(op byte) error {
	i := len(m.memo) // MEMOIZE
	if op != 0x94 {
		var err error
		if i, err = m.memoIndex(op); err != nil {
			return err
		}
	}
	v, err := m.top()
	if err != nil {
		return err
	}
	if i > len(m.in) || i > maxMemo { // picklers count up from 0
		return m.corrupt("a memo index in it is out of all proportion")
	}
	if more := i + 1 - len(m.memo); more > 0 {
		if err := m.spend(16 * more); err != nil {
			return err
		}
		m.memo = append(m.memo, make([]any, more)...)
	}
	m.memo[i] = v
	return nil
}

func (m *machine) get(op byte) error {
	i, err := m.memoIndex(op)
	if err != nil {
		return err
	}
	if i >= len(m.memo) {
		return m.corrupt("it recalls what was never stored")
	}
	return m.push(m.memo[i])
}
