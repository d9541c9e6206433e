//! Products of matrices in host memory, by the `gemm` crate.

use std::mem::MaybeUninit;

use gemm::Parallelism;

/// Multiplications from which on a product is shared among threads.
const SHARED: usize = 192 * 192 * 192;

/// Where a matrix lies in a slice.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Of the first element.
    pub start: usize,
    /// From row to row.
    pub row: usize,
    /// From column to column.
    pub column: usize,
}

impl Place {
    /// The same elements with rows as columns.
    pub fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    /// Whether so many rows and columns lie in `length` values.
    fn fits(self, rows: usize, columns: usize, length: usize) -> bool {
        rows == 0 || columns == 0 || self.start + (rows - 1) * self.row + (columns - 1) * self.column < length
    }
}

/// `out = factor · a · b` for `a` `[rows, inner]`, `b` `[inner, columns]`, by the calling thread.
pub fn product(
    sizes: [usize; 3],
    factor: f32,
    a: (&[f32], Place),
    b: (&[f32], Place),
    (out, at_out): (&mut [f32], Place),
) {
    assert!(at_out.fits(sizes[0], sizes[2], out.len()));
    // SAFETY: as asserted, all elements of `out` lie in its slice, which nobody else borrows.
    unsafe { multiply(sizes, factor, a, b, (out.as_mut_ptr(), at_out), Parallelism::None) }
}

/// `a · b`, `[rows, columns]`, in memory of its own, by all threads.
pub fn new_product(sizes: [usize; 3], a: (&[f32], Place), b: (&[f32], Place)) -> Vec<f32> {
    let [rows, inner, columns] = sizes;
    let length = rows * columns;
    let mut out: Vec<f32> = Vec::with_capacity(length);
    let threads = if length * inner < SHARED { Parallelism::None } else { Parallelism::Rayon(0) };
    let at_out = Place { start: 0, row: columns, column: 1 };
    let spare: &mut [MaybeUninit<f32>] = &mut out.spare_capacity_mut()[..length];
    // SAFETY: `out` has room for all elements, one behind the other, and nobody else knows of it.
    unsafe { multiply(sizes, 1.0, a, b, (spare.as_mut_ptr().cast(), at_out), threads) };
    // SAFETY: the product has written them all; with `inner` of 0 they are the zeros of an empty sum.
    unsafe { out.set_len(length) };
    out
}

/// # Safety
/// The elements of the result lie at `out` and are borrowed by nobody else; what was there is not read.
unsafe fn multiply(
    [rows, inner, columns]: [usize; 3],
    factor: f32,
    (a, at_a): (&[f32], Place),
    (b, at_b): (&[f32], Place),
    (out, at_out): (*mut f32, Place),
    threads: Parallelism,
) {
    assert!(at_a.fits(rows, inner, a.len()) && at_b.fits(inner, columns, b.len()));
    let step = |n: usize| n as isize;
    // SAFETY: as asserted, all elements of `a` and `b` lie in their slices; `out` is the caller's.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out.add(at_out.start),
            step(at_out.column),
            step(at_out.row),
            false,
            a.as_ptr().wrapping_add(at_a.start),
            step(at_a.column),
            step(at_a.row),
            b.as_ptr().wrapping_add(at_b.start),
            step(at_b.column),
            step(at_b.row),
            0.0,
            factor,
            false,
            false,
            false,
            threads,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_sums_of_products_wherever_the_matrices_lie() {
        for [rows, inner, columns] in [[1, 1, 1], [3, 0, 2], [0, 4, 2], [5, 7, 3], [200, 190, 201]] {
            let of = |length: usize, step: usize| (0..length + 1).map(|i| (i * step % 11) as f32).collect::<Vec<f32>>();
            let (a, b) = (of(rows * inner, 3), of(inner * columns, 5));
            for (a_turned, b_turned) in [(false, false), (true, false), (false, true), (true, true)] {
                let place = |rows: usize, columns: usize, turned: bool| match turned {
                    false => Place { start: 1, row: columns, column: 1 },
                    true => Place { start: 1, row: 1, column: rows },
                };
                let (at_a, at_b) = (place(rows, inner, a_turned), place(inner, columns, b_turned));
                let at =
                    |place: Place, row: usize, column: usize| place.start + row * place.row + column * place.column;
                let mut expected = Vec::new();
                for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                    let terms = (0..inner).map(|i| a[at(at_a, row, i)] * b[at(at_b, i, column)]);
                    expected.push(terms.sum::<f32>()); // exact: small integers
                }
                let sizes = [rows, inner, columns];
                assert_eq!(new_product(sizes, (&a, at_a), (&b, at_b)), expected);
                let mut out = vec![-1f32; rows * columns];
                product(sizes, 2.0, (&a, at_a), (&b, at_b), (&mut out, Place { start: 0, row: columns, column: 1 }));
                assert_eq!(out, expected.iter().map(|value| 2.0 * value).collect::<Vec<_>>());
            }
        }
    }
}
