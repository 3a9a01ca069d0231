//! Kernels compute for a while and print what only the work can tell. The same are in Go and C.

use std::env;
use std::f64::consts::PI;

/// Bits is how many it takes to write n.
fn bits(n: usize) -> usize {
    (usize::BITS - n.leading_zeros()) as usize
}

/// SHA-256, FIPS 180-4.
const K: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];

fn block(h: &mut [u32; 8], p: &[u8]) {
    let mut w = [0u32; 64];
    for (w, b) in w.iter_mut().zip(p.chunks_exact(4)) {
        *w = u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
    }
    for i in 16..64 {
        let (a, b) = (w[i - 15], w[i - 2]);
        w[i] = w[i - 16]
            .wrapping_add(a.rotate_right(7) ^ a.rotate_right(18) ^ a >> 3)
            .wrapping_add(w[i - 7])
            .wrapping_add(b.rotate_right(17) ^ b.rotate_right(19) ^ b >> 10);
    }
    let mut s = *h;
    for i in 0..64 {
        let (a, e) = (s[0], s[4]);
        let t = s[7]
            .wrapping_add(e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25))
            .wrapping_add((e & s[5]) ^ (!e & s[6]))
            .wrapping_add(K[i])
            .wrapping_add(w[i]);
        let u = (a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22)).wrapping_add((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        s = [t.wrapping_add(u), s[0], s[1], s[2], s[3].wrapping_add(t), s[4], s[5], s[6]];
    }
    for (h, s) in h.iter_mut().zip(s) {
        *h = h.wrapping_add(s);
    }
}

/// The sum of whole blocks.
fn sum256(p: &[u8]) -> Vec<u8> {
    let mut h = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
    p.chunks_exact(64).for_each(|b| block(&mut h, b));
    let mut last = [0; 64];
    last[0] = 0x80;
    last[56..].copy_from_slice(&(p.len() as u64 * 8).to_be_bytes());
    block(&mut h, &last);
    h.iter().flat_map(|h| h.to_be_bytes()).collect()
}

fn sha256(scale: usize) -> String {
    let mut buffer = vec![0; 64 << 10];
    let mut sum = sum256(&[]);
    for _ in 0..scale {
        buffer[..32].copy_from_slice(&sum);
        sum = sum256(&buffer);
    }
    sum.iter().map(|b| format!("{:02x}", b)).collect()
}

fn quick(mut list: &mut [u32]) {
    while list.len() > 1 {
        let pivot = list[list.len() / 2];
        let (mut i, mut j) = (0, list.len() - 1);
        loop {
            while list[i] < pivot {
                i += 1;
            }
            while list[j] > pivot {
                j -= 1;
            }
            if i >= j {
                break;
            }
            list.swap(i, j);
            i += 1;
            j -= 1;
        }
        let (a, b) = list.split_at_mut(i);
        let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
        quick(short);
        list = long;
    }
}

fn sort(scale: usize) -> String {
    let mut x = 1u32;
    let mut list: Vec<u32> = (0..3000 * scale)
        .map(|_| {
            x = x.wrapping_mul(1664525).wrapping_add(1013904223);
            x
        })
        .collect();
    quick(&mut list);
    list[list.len() / 2].to_string()
}

fn fib(n: usize) -> usize {
    if n < 2 {
        n
    } else {
        fib(n - 1) + fib(n - 2)
    }
}

fn matmul(scale: usize) -> String {
    let n = 16 * bits(scale);
    let a: Vec<f64> = (0..n * n).map(|i| (i % 7) as f64).collect();
    let b: Vec<f64> = (0..n * n).map(|i| (i % 5) as f64).collect();
    let mut c = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..n {
            c[i * n + j] = (0..n).map(|k| a[i * n + k] * b[k * n + j]).sum();
        }
    }
    c[n + 1].to_string()
}

#[derive(Clone, Copy, Default)]
struct Body {
    x: f64,
    y: f64,
    z: f64,
    vx: f64,
    vy: f64,
    vz: f64,
    mass: f64,
}

const SUN: f64 = 4.0 * PI * PI;
const YEAR: f64 = 365.24;

fn body(x: f64, y: f64, z: f64, vx: f64, vy: f64, vz: f64, mass: f64) -> Body {
    Body { x, y, z, vx: vx * YEAR, vy: vy * YEAR, vz: vz * YEAR, mass: mass * SUN }
}

fn energy(bodies: &[Body; 5]) -> f64 {
    let mut e = 0.0;
    for (i, b) in bodies.iter().enumerate() {
        e += b.mass * (b.vx * b.vx + b.vy * b.vy + b.vz * b.vz) / 2.0;
        for c in &bodies[i + 1..] {
            let (x, y, z) = (b.x - c.x, b.y - c.y, b.z - c.z);
            e -= b.mass * c.mass / (x * x + y * y + z * z).sqrt();
        }
    }
    e
}

fn nbody(scale: usize) -> String {
    let mut bodies = [
        Body { mass: SUN, ..Body::default() },
        body(4.84143144246472090, -1.16032004402742839, -0.103622044471123109, 0.00166007664274403694, 0.00769901118419740425, -0.0000690460016972063023, 0.000954791938424326609),
        body(8.34336671824457987, 4.12479856412430479, -0.403523417114321381, -0.00276742510726411228, 0.00499852801234917238, 0.0000230417297573763929, 0.000285885980666130812),
        body(12.8943695621391310, -15.1111514016986312, -0.223307578892655734, 0.00296460137564761618, 0.00237847173959480950, -0.0000296589568540237556, 0.0000436624404335156298),
        body(15.3796971148509165, -25.9193146099879641, 0.179258772950371181, 0.00268067772490389322, 0.00162824170038242295, -0.0000951592254519715870, 0.0000515138902046611451),
    ];
    for i in 0..5 {
        let b = bodies[i];
        bodies[0].vx -= b.vx * b.mass / SUN;
        bodies[0].vy -= b.vy * b.mass / SUN;
        bodies[0].vz -= b.vz * b.mass / SUN;
    }
    let before = energy(&bodies);
    let step = 0.01;
    for _ in 0..1000 * scale {
        for i in 0..5 {
            let (left, right) = bodies.split_at_mut(i + 1);
            let b = &mut left[i];
            for c in right {
                let (x, y, z) = (b.x - c.x, b.y - c.y, b.z - c.z);
                let square = x * x + y * y + z * z;
                let mag = step / (square * square.sqrt());
                b.vx -= x * c.mass * mag;
                b.vy -= y * c.mass * mag;
                b.vz -= z * c.mass * mag;
                c.vx += x * b.mass * mag;
                c.vy += y * b.mass * mag;
                c.vz += z * b.mass * mag;
            }
        }
        for b in &mut bodies {
            b.x += step * b.vx;
            b.y += step * b.vy;
            b.z += step * b.vz;
        }
    }
    format!("{:.9} {:.9}", before, energy(&bodies))
}

fn main() {
    let args: Vec<String> = env::args().collect();
    let scale = args[2].parse().unwrap();
    let text = match args[1].as_str() {
        "sha256" => sha256(scale),
        "nbody" => nbody(scale),
        "matmul" => matmul(scale),
        "sort" => sort(scale),
        "fib" => fib(20 + bits(scale)).to_string(),
        other => panic!("no kernel {}", other),
    };
    println!("{}", text);
}
