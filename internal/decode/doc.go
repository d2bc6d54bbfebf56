// Package decode multiplies a few rows of activations by weights that were
// packed once, and attends over a paged cache of keys and values: the arithmetic
// of generation. It knows shapes, not models.
//
// Generation is limited by how often the weights are read from memory, so that
// they are kept small (fp32, bf16, q8_0, q4_0) and are read once for all rows.
//
// A [Matrix] is cut into panels of 32 columns. A panel is a chain of steps along
// the sum: a step is one float32, a pair of bf16 or a block of 32 quantized
// values for each column. Activations, the [Operand], are rows of the same
// steps: float32, pairs of bf16 (as float32 where the processor has no products of
// such pairs), or 32 signed bytes with their scale. One shape
// of micro-kernel does everything: up to twelve rows by one panel, the sums in
// registers.
//
//	float32, bf16   [step][32 columns] words of 4 bytes
//	q8_0            [block][32 fp16 scales][8][32 columns] words of 4 values + 128
//	q4_0            [block][32 fp16 scales][4][32 columns] words: values 4g… + 8 in the
//	                lower, 16+4g… + 8 in the upper halves of the bytes
//	squeezed        28 bits a weight of fp32, 12 of bf16, and nothing lost: see squeeze.go
//	operand, q      [block]{32 int8, float32 scale, int32 -zero*sum of the bytes}
//
// The cache's pages are such panels too: 32 tokens are the columns of the keys,
// and the steps of the values. One row walks over a head's panels in all pages in
// one call (a [walk]), which asks for pages ahead of its work.
//
// Every sum is one chain from the first step to the last, whatever the number of
// rows and however the work is blocked. A row's result therefore does not depend
// on the rows beside it, nor on the number of threads: a prompt read at once, in
// pieces or token by token gives the same bits.
package decode

//go:generate go -C ../kernel/gen run ./decode -out ../../decode/kernels_amd64.s -stubs ../../decode/kernels_amd64.go -pkg decode
