// The sound between samples, for reading a little faster or slower than it was made.

/** Catmull and Rom's cubic through four samples in a row, `part` of the way from b to c. */
export const cubic = (a, b, c, d, part) =>
  b + 0.5 * part * (c - a + part * (2 * a - 5 * b + 4 * c - d + part * (3 * (b - c) + d - a)));
