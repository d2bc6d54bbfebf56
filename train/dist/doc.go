// Package dist spreads a training over the ranks of an MPI job, so that the
// result does not depend, to the last bit, on how many there are.
//
// The effective batch of a step is divided into a fixed number of shards, each
// rank computes some of them, and the shards' gradients are added up in a fixed
// binary tree (tree.go): within a rank as far as its shards go, then across
// ranks. For that every bucket of the gradients is exchanged twice (reduce.go):
// each rank gets everyone's part of its slice (Alltoall), adds them up in the
// tree's order, and gives the sum to all (Allgather): as many bytes as a ring
// takes. Buckets are exchanged as soon as the backward pass has finished with
// them.
//
// A Group is nil where there is one process and no MPI; its methods then do
// what one rank alone does.
package dist
