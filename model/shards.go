package model

// A training that divides its effective batch among several sums, to be added
// up in an order of its own, has each of them collected in another place and is
// told, during the backward pass, how much of the sum is final.

// CollectIn makes the gradients go to p from now on, which is laid out by
// Trainable.Over; nil: to the graph's own, which ValueGrads hands out. What was
// looked up so far is added to the place used until now.
func (g *Graph) CollectIn(p *Params) {
	g.settle()
	if p == nil {
		p = g.own
	}
	g.grads = p
}

// GradArena is the memory of the graph's own gradients: those of all trained
// tensors, one after another.
func (g *Graph) GradArena() []float32 { return g.buf.grads }

// OnFinal has f called during the backward pass of each Step from now on: when
// the gradients of the tensors from that index on (in the order of
// Params.Tensors) have got all that this Step adds to them. The token embedding
// is final only after CollectIn, Grads or ValueGrads. nil: no calls.
func (g *Graph) OnFinal(f func(tensor int)) { g.onFinal = f }

// finalFrom is the first of the tensors that an operation with these inputs,
// and those before it in the backward pass, complete: the layers' tensors lie
// in the order of the forward pass. Those that are not trained do not count. The
// tied head is the token embedding and not complete yet.
func (b *builder) finalFrom(in []edge) int {
	from := len(b.nodes)
	for _, e := range in {
		for i, n := range b.nodes {
			trained := b.train && b.g.own.Tensors[i].Data != nil
			if n == e.node && trained && (i > 0 || !b.g.p.HeadTied) {
				from = min(from, i)
			}
		}
	}
	return from
}
