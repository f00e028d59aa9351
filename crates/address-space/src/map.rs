//! The address space as a picture: plain SVG, in which an overlap or a full subnet is seen at a glance.
//!
//! The upper part has a row for each range of a VPC. Ranges that overlap share a scale, one below the other, so that
//! what both have is one hatched column. The lower part shows where in each subnet the addresses in use are. Colours
//! never stand alone: patterns, numbers and titles say the same.

mod svg;

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use self::svg::{Box2, Svg};
use crate::audit::{Audit, VpcUse};
use crate::percent;
use crate::span::{Span, size};
use crate::subnet::{SubnetUse, v4};

/// The most rows of ranges, and the most rows of subnets.
const MOST_ROWS: usize = 150;
const WIDTH: u32 = 1200;
const LEFT: u32 = 330;
const BAR: u32 = 720;
const ROW: u32 = 24;
const GAP: u32 = 10;
const OVERLAP: &str = "two VPCs have these addresses";
/// Cells of a subnet's strip.
const CELLS: u64 = 64;

/// From which shares in use, in percent, a subnet is marked.
#[derive(Debug, Clone, Copy)]
pub struct Marks {
    /// As nearly full.
    pub warn_at: u64,
    /// As full.
    pub fail_at: u64,
}

/// The picture. The same audit gives the same bytes.
#[must_use]
pub fn svg(audit: &Audit, marks: Marks) -> String {
    let mut picture = Svg::new(WIDTH);
    let mut y = upper(&mut picture, audit, marks) + GAP;
    let mut subnets: Vec<&SubnetUse> = audit.subnets.iter().collect();
    subnets.sort_by_key(|subnet| (std::cmp::Reverse(subnet.room.percent), subnet.cidr, &subnet.id));
    let shown = &subnets[..subnets.len().min(MOST_ROWS)];
    let title = "Where addresses are in use in each subnet, the fullest first";
    y = heading(&mut picture, y, title, subnets.len() - shown.len());
    for subnet in shown {
        strip(&mut picture, subnet, marks, y);
        y += ROW;
    }
    picture.finish("Address space", &about(audit), y + GAP)
}

/// The upper part alone, for subnets that are planned: nobody knows where in them addresses will be.
#[must_use]
pub fn ranges(audit: &Audit, marks: Marks) -> String {
    let mut picture = Svg::new(WIDTH);
    let y = upper(&mut picture, audit, marks);
    picture.finish("Planned address space", &about(audit), y + GAP)
}

fn upper(picture: &mut Svg, audit: &Audit, marks: Marks) -> u32 {
    let (bands, n_hidden) = bands(audit);
    let y = legend(picture, marks);
    let y = heading(picture, y, "Ranges of VPCs and their subnets", n_hidden);
    bands.iter().fold(y, |y, band| band.draw(picture, audit, marks, y))
}

fn about(audit: &Audit) -> String {
    format!(
        "{} VPCs, {} subnets, {} overlaps. A hatched column with a thick border is an overlap. A subnet with stripes is full.",
        audit.vpcs.len(),
        audit.subnets.len(),
        audit.n_overlaps
    )
}

fn legend(picture: &mut Svg, marks: Marks) -> u32 {
    picture.text(20, 34, "title", "Address space");
    let Marks { warn_at, fail_at } = marks;
    let entries = [
        ("space", "no subnet".to_owned()),
        ("use0", "subnet, empty".to_owned()),
        ("use2", "half in use".to_owned()),
        ("near", format!("{warn_at} % or more")),
        ("full", format!("full: {fail_at} % or more")),
        ("hatched", "overlap".to_owned()),
    ];
    for (index, (class, text)) in (0_u32..).zip(entries) {
        let x = 20 + index * 190;
        picture.rect(Box2 { x, y: 50, width: 28, height: 16 }, class, &text);
        picture.text(x + 36, 63, "small", &text);
    }
    96
}

fn heading(picture: &mut Svg, y: u32, text: &str, n_hidden: usize) -> u32 {
    let more =
        if n_hidden > 0 { format!(" ({n_hidden} more are not shown)") } else { String::new() };
    picture.text(20, y + 8, "heading", &format!("{text}{more}"));
    y + 22
}

/// A row of a [`Band`].
struct Row<'a> {
    vpc: &'a VpcUse,
    cidr: Ipv4Net,
}

/// Ranges that overlap, on the scale of the largest. A range that overlaps none has a band of its own.
struct Band<'a> {
    span: Span,
    rows: Vec<Row<'a>>,
}

/// The bands, those with overlaps first, and how many rows are left out.
fn bands(audit: &Audit) -> (Vec<Band<'_>>, usize) {
    let ranges = audit.vpcs.iter().flat_map(|vpc| {
        vpc.cidrs.iter().copied().filter_map(v4).map(move |cidr| Row { vpc, cidr })
    });
    let mut rows: Vec<Row<'_>> = ranges.collect();
    rows.sort_by_key(|row| (row.cidr.network(), row.cidr.prefix_len(), &row.vpc.id));
    let mut bands: Vec<Band<'_>> = vec![];
    for row in rows {
        let span = Span::of(row.cidr);
        match bands.last_mut().filter(|band| band.span.and(span).len() > 0) {
            Some(band) => band.rows.push(row),
            None => bands.push(Band { span, rows: vec![row] }),
        }
    }
    bands.sort_by_key(|band| (band.rows.len() < 2, band.span));
    let mut n_left = MOST_ROWS;
    let mut n_hidden = 0;
    for band in &mut bands {
        let n_shown = band.rows.len().min(n_left);
        n_hidden += band.rows.len() - n_shown;
        band.rows.truncate(n_shown);
        n_left -= n_shown;
    }
    bands.retain(|band| !band.rows.is_empty());
    (bands, n_hidden)
}

impl Band<'_> {
    /// The ranges, what they share, the subnets above that, and the border of what they share above all.
    fn draw(&self, picture: &mut Svg, audit: &Audit, marks: Marks, top: u32) -> u32 {
        let rows: Vec<_> = (0_u32..).map(|n| top + n * (ROW + 4)).zip(&self.rows).collect();
        for (y, row) in &rows {
            let VpcUse { name, place, percent, .. } = row.vpc;
            picture.text(20, y + 11, "label", &format!("{name}  {}", row.cidr));
            picture.text(20, y + 22, "tiny", &format!("{} {}", place.account, place.region));
            let title = format!("{name} {}: {percent} % given to subnets", row.cidr);
            picture.rect(self.place(Span::of(row.cidr), *y), "space", &title);
        }
        let bottom = rows.last().map_or(top, |(y, _)| y + ROW);
        let shared: Vec<_> = self
            .overlaps()
            .into_iter()
            .map(|span| Box2 { height: bottom - top, ..self.place(span, top) })
            .collect();
        shared.iter().for_each(|place| picture.rect(*place, "hatched", OVERLAP));
        for (y, row) in &rows {
            let within =
                |subnet: &&SubnetUse| subnet.vpc == row.vpc.id && row.cidr.contains(&subnet.cidr);
            for subnet in audit.subnets.iter().filter(within) {
                self.subnet(picture, subnet, marks, *y);
            }
        }
        for place in shared {
            picture.rect(place, "edge", OVERLAP);
            picture.text(LEFT + BAR + 12, top + 16, "alarm", "overlap");
        }
        bottom + GAP
    }

    fn subnet(&self, picture: &mut Svg, subnet: &SubnetUse, marks: Marks, y: u32) {
        let place = Box2 { height: ROW - 6, ..self.place(Span::of(subnet.cidr), y + 3) };
        let percent = subnet.room.percent;
        let title = format!("{} {}: {percent} % in use", subnet.name, subnet.cidr);
        picture.rect(place, class(percent, marks), &title);
        if place.width > 44 {
            let text = format!("{percent} %");
            picture.text(place.x + 5, y + 16, ink(percent), &text);
        }
    }

    /// What more than one row has. Rows are in order of their starts.
    fn overlaps(&self) -> BTreeSet<Span> {
        let mut found = BTreeSet::new();
        for (index, row) in self.rows.iter().enumerate() {
            let later = self.rows[index + 1..].iter().filter(|other| other.vpc.id != row.vpc.id);
            let shared = later.map(|other| Span::of(other.cidr).and(Span::of(row.cidr)));
            found.extend(shared.filter(|span| span.len() > 0));
        }
        found
    }

    /// Where a part of the band is. It is at least two wide, so that a /28 is seen in a /16.
    fn place(&self, part: Span, y: u32) -> Box2 {
        let x = |at: u64| scaled(at - self.span.start, self.span.len(), BAR);
        let (start, end) = (x(part.start), x(part.end));
        Box2 { x: LEFT + start.min(BAR - 2), y, width: (end - start).max(2), height: ROW }
    }
}

/// `part` of `whole` on a scale of `length`.
fn scaled(part: u64, whole: u64, length: u32) -> u32 {
    u32::try_from(part * u64::from(length) / whole.max(1)).unwrap_or(length).min(length)
}

fn class(percent: u64, marks: Marks) -> &'static str {
    match percent {
        percent if percent >= marks.fail_at => "full",
        percent if percent >= marks.warn_at => "near",
        percent => cell(percent),
    }
}

/// The fill of a share that nobody has to worry about.
fn cell(percent: u64) -> &'static str {
    match percent {
        0..5 => "use0",
        5..35 => "use1",
        35..65 => "use2",
        65..100 => "use3",
        _ => "cell4",
    }
}

/// Text on a fill has to differ from it.
fn ink(percent: u64) -> &'static str {
    if percent >= 35 { "light" } else { "small" }
}

fn strip(picture: &mut Svg, subnet: &SubnetUse, marks: Marks, y: u32) {
    let room = &subnet.room;
    picture.text(20, y + 13, "label", &format!("{}  {}", subnet.name, subnet.cidr));
    let mark = Box2 { x: LEFT - 24, y, width: 16, height: ROW - 8 };
    picture.rect(mark, class(room.percent, marks), &format!("{} % in use", room.percent));
    let shares = shares(subnet);
    let width = BAR / u32::try_from(shares.len()).unwrap_or(BAR).max(1);
    for (index, (percent, n)) in (0_u32..).zip(shares) {
        let place =
            Box2 { x: LEFT + index * width, y, width: width.saturating_sub(1), height: ROW - 8 };
        picture.rect(place, cell(percent), &format!("{n} addresses in use"));
    }
    let text = format!("{} %, {} free /28", room.percent, room.free_prefixes);
    let ink = if room.percent >= marks.fail_at { "alarm" } else { "small" };
    picture.text(LEFT + BAR + 12, y + 13, ink, &text);
}

/// The share in use of each cell in percent, and the number of addresses.
fn shares(subnet: &SubnetUse) -> Vec<(u64, u64)> {
    let whole = size(subnet.cidr);
    let n_cells = whole.min(CELLS);
    let step = whole / n_cells;
    let start = Span::of(subnet.cidr).start;
    let mut counts = vec![0_u64; usize::try_from(n_cells).unwrap_or_default()];
    for span in &subnet.room.taken {
        let mut at = span.start - start;
        let end = span.end - start;
        while at < end {
            let cell = at / step;
            let next = ((cell + 1) * step).min(end);
            if let Some(count) = usize::try_from(cell).ok().and_then(|cell| counts.get_mut(cell)) {
                *count += next - at;
            }
            at = next;
        }
    }
    counts.into_iter().map(|n| (percent(n, step), n)).collect()
}
