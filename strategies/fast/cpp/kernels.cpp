// The outgoing edges of a state of a cell, image by image, and the activations into a node of a recurrent cell, piece by piece: what is
// computed stays in a core's cache from one operation to the next. kernels.py builds this file, compiled.py and recurrent.py call it.
//
// Images are (height, width, channels) and y is (pixels, edges, channels), for the edges that have the same operation. Every
// thread has images of its own. What is summed over images is summed in double precision, over the threads in their order: the same number
// of threads gives the same result.

#include "activations.h"
#include "mixture.h"

// REAL is float or double: each precision is built by itself.

extern "C" long plan_version() { return PLAN_VERSION; }

extern "C" void measure(const State* s, long* bytes) { measure<REAL>(*s, bytes); }

extern "C" void forward(const State* s, char* memory, REAL* nodes, int fresh, double* statistics) {
    Forward<REAL>(*s, memory, statistics).add_to(nodes, fresh);
}

extern "C" void backward(
    const State* s, char* memory, char* temporary, const REAL* gradient, double* of_weights, REAL* of_x, REAL* of_parameters) {
    Backward<REAL>(*s, memory, temporary, gradient, of_weights, of_parameters).to_state(of_x);
}

extern "C" void activate(
    long edges, long count, const REAL* const* states, REAL* gates, const REAL* updates, const REAL* weights, REAL* total, int threads) {
    activate<REAL>(edges, count, states, gates, updates, weights, total, threads);
}

extern "C" void activate_backward(
    long edges, long count, const REAL* gradient, const REAL* const* states, REAL* gates, REAL* updates, const REAL* weights,
    REAL* const* of_states, double* of_weights, int threads) {
    activate_backward<REAL>(edges, count, gradient, states, gates, updates, weights, of_states, of_weights, threads);
}
