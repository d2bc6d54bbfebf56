// Package kernel is the arithmetic of training and generation: slices of
// float32 in, results out. It knows shapes, not models.
//
// A [CPU] owns a pool of worker threads, the scratch memory, and the kernels of
// one instruction set. Its methods are the operations of a transformer, each
// forward and backward:
//
//	cpu, err := kernel.New(kernel.Options{})
//	defer cpu.Close()
//	cpu.Gemm(&kernel.Gemm{M: 4, N: 8, K: 16, A: a, B: b, C: c})
//
// Matrices are row-major. A shape in a comment, [rows, width], names the
// logical extent of the slice beside it. A slice with less room than its shape panics,
// as an index out of range does anywhere in Go; one that is shorter and has the room
// is used up to its shape.
//
// How the speed comes about: matrix products are cut into blocks that fit the
// caches, copied ("packed") into the order in which they are read, and handed
// to a micro-kernel that keeps a tile of C in registers (Goto and van de Geijn,
// Anatomy of High-Performance Matrix Multiplication, 2008). What all threads read
// of it is stored past the caches, since a core waits for a line that another has
// read; and each packs the rows that it wrote, as far as that is possible. What a
// thread packs next it fetches line by line while it multiplies. All else is bound
// by memory, so passes are joined: a product's bias, activation, dropout and residual
// are applied while the block is still in the cache, and logits become exponentials
// there.
//
// Two properties hold throughout and are tested. Results do not depend on the
// number of threads, because work is split over independent outputs and never
// over a sum. And sums over the rows of a batch go sequence by sequence, so that
// a batch of eight and eight batches of one give the same gradient.
//
// The package ref beside this one says the same in float64, one loop at a time;
// it is what the tests hold this package against.
package kernel

//go:generate go -C gen run . -out ../kernels_amd64.s -stubs ../kernels_amd64.go -pkg kernel
