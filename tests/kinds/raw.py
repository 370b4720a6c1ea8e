"""Raw interactions: formats, and the forms in which their files come."""

import gzip
import json

import polars as pl
import raw_files
from raw_files import RATINGS, TITLES, lines

from goracs_jax.data.interactions import in_order, read_raw
from goracs_jax.data.raw_files import find_raw_files
from kinds import Group, Kind

#: What a format is called where it is published, and its name here.
PUBLISHED = {
    "MovieLens 100K": "movielens-100k",
    "MovieLens 1M": "movielens-1m",
    "MovieLens latest": "movielens-csv",
    "MovieLens 20M, 25M, 32M": "movielens-csv",
    "Amazon 2014": "amazon-2014",
    "Amazon 2018": "amazon-2018",
    "Amazon 2023": "amazon-2023",
    "Steam (McAuley)": "steam",
    "Goodreads (UCSD)": "goodreads",
    "MIND": "mind",
    "KuaiRec": "kuairec",
    "Yelp": "yelp",
    "RecBole": "recbole",
}
#: Those of which real files were read, and users, items and interactions counted by a
#: plain loop, too: all of 100K, also as RecBole has it, and of latest-small; Gift Cards
#: with five reviews each; 5,000 lines of MINDsmall with 2,000 of its titles.
TRIED = ("MovieLens 100K", "MovieLens latest", "Amazon 2018", "MIND", "RecBole")


def read(given):
    """The interactions and the titles of files."""
    name, path, *rest = given
    metadata, columns, options = [*rest, None, None, None][:3]
    files = find_raw_files(name, path, metadata, columns, **(options or {}))
    raw = read_raw(files, max_bad=0.0)
    rows = in_order(raw.ratings.rows, files.order, seed=0).rows()
    return rows, {item: title for item, title in raw.titles.rows.rows() if title}


def rated(name, rows=RATINGS):
    unrated = name in raw_files.UNRATED
    return [(u, i, None if unrated else r, t) for u, i, r, t in rows], TITLES


def published(title, name):
    def make(folder):
        path, metadata = raw_files.write(name, folder)
        return "auto", path, metadata

    return Kind(title, make, rated(name), tried=title in TRIED)


def movielens_10m(folder):
    """The layout of 1M, in UTF-8 and with half stars."""
    raw_files.write("movielens-1m", folder)
    text = (folder / "movies.dat").read_text("latin-1")
    (folder / "movies.dat").write_text(text, "utf-8")
    return "auto", folder


def meta(folder, name="amazon-2018"):
    _, metadata = raw_files.write(name, folder)
    return metadata


def bare(order, name, file="x.csv", said=None):
    """Ratings without a header, and titles in JSON."""

    def make(folder):
        rows = ({"u": u, "i": i, "r": r, "t": f"{t:g}"} for u, i, r, t in RATINGS)
        lines(folder / file, [",".join(str(row[k]) for k in order) for row in rows])
        return said or name, folder / file, meta(folder)

    return make


def amazon_csv(write_meta):
    """Ratings of 2023 as CSV, with times in milliseconds."""

    def make(folder):
        rows = [f"{u},{i},{r},{1000 * t:g}" for u, i, r, t in RATINGS]
        path = lines(folder / "r.csv", ["user_id,parent_asin,rating,timestamp", *rows])
        return "auto", path, write_meta(folder)

    return make


def meta_csv(folder):
    named = [f"{i},{raw_files.quoted(t)}" for i, t in TITLES.items()]
    return lines(folder / "meta.csv", ["parent_asin,title", *named])


def meta_parquet(folder):
    named = {"parent_asin": [*TITLES], "title": [*TITLES.values()]}
    pl.DataFrame(named).write_parquet(folder / "meta.parquet")
    return folder / "meta.parquet"


def markup(folder):
    """Titles with tags, and with pieces of the page's scripts."""
    path, _ = raw_files.write("amazon-2018", folder)
    page = '<span id="productTitle" class="a">{}</span> var aPageStart = (new Date()).'
    script = "var ue_t0 = ue_t0 || +new Date(); if (window.ue) { ue('x'); }"
    titles = {
        "10": page.format("Amélie") + "getTime();",
        "11": "<b>Crouching Tiger</b> &amp;amp; Dragon, 2000",
        "12": 'The "Thing" <script>var x = 1;</script>',
        "13": "Cap " + script,
    }
    meta = [{"asin": item, "title": title} for item, title in titles.items()]
    return "auto", path, raw_files.json_lines(folder / "meta.json", meta)


HEAD = ("user_id", "item_id", "rating", "timestamp", "title")


def own(by=",", written="utf-8", head=HEAD, quote=raw_files.quoted, **said):
    """A file of one's own with all that is needed."""

    def make(folder):
        rows = [
            by.join([u, i, f"{r:g}", f"{t:g}", quote(TITLES[i])])
            for u, i, r, t in RATINGS
        ]
        top = [by.join(head)] if head else []
        path = lines(folder / "a.csv", [*top, *rows], written)
        columns = said.get("columns")
        options = {k: v for k, v in said.items() if k != "columns"}
        return "csv", path, None, columns, options

    return make


def records():
    return [
        dict(zip(HEAD, (u, int(i), r, t, TITLES[i]), strict=True))
        for u, i, r, t in RATINGS
    ]


def document(folder):
    (folder / "a.json").write_text(json.dumps({"data": records()}))
    return "jsonl", folder / "a.json"


def broken_lines(folder):
    """A line break inside the quotes of a title is white space."""
    broken = lambda text: raw_files.quoted(text.replace(" ", "\n"))
    return own(quote=broken)(folder)


def without_times(order=None):
    def make(folder):
        rows = [f"{u},{i},{r},{raw_files.quoted(TITLES[i])}" for u, i, r, _ in RATINGS]
        path = lines(folder / "a.csv", ["user_id,item_id,rating,title", *rows])
        return "csv", path, None, None, {"order": order} if order else {}

    return make


def goodreads_csv(folder):
    head = "user_id,book_id,is_read,rating,is_reviewed"
    path = lines(folder / "goodreads_interactions.csv", [head, "0,948,1,5,0"])
    return "auto", path, meta(folder, "goodreads")


def clicks_before(folder):
    """The history of a user of MIND comes before what is clicked."""
    lines(
        folder / "behaviors.tsv",
        [
            "1\tu\t11/15/2019 10:22:32 AM\t10 11\t12-1 13-0",
            "2\tv\t11/15/2019 1:00:00 PM\t\t10-0",
        ],
    )
    lines(folder / "news.tsv", [f"{i}\tnews\tx\t{t}" for i, t in TITLES.items()])
    return "auto", folder


def unrated_books(folder):
    """A rating of 0 is none."""
    record = {"user_id": "7", "book_id": "10", "rating": 0}
    record["date_added"] = "Thu Jan 01 00:06:40 +0000 1970"
    path = raw_files.json_lines(folder / "r.json", [record])
    return "auto", path, meta(folder, "goodreads")


def packed(folder):
    raw_files.write("movielens-csv", folder)
    for name in ("ratings.csv", "movies.csv"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    return "auto", folder


def placed(places):
    rows = zip(RATINGS, places, strict=True)
    return [(u, i, r, float(place)) for (u, i, r, _), place in rows], TITLES


NUMBERS = {"user": "1", "item": "2", "rating": "3", "time": "4", "title": "5"}
CLICKED = [("u", item, None, 1573813352.0) for item in ("10", "11", "12")]

GROUP = Group(
    "Raw interactions: `goracs prepare`",
    read,
    (RATINGS, TITLES),
    (
        *(published(title, name) for title, name in PUBLISHED.items()),
        Kind("MovieLens 10M", movielens_10m, tried=False),
        Kind("MovieLens, packed files in a folder", packed, tried=False),
        Kind(
            "Amazon 2014, `ratings_*.csv` without a header",
            bare("uirt", "amazon-2014", "ratings_Beauty.csv", "auto"),
            tried=False,
        ),
        Kind(
            "Amazon 2018, ratings without a header, `--format amazon-2018`",
            bare("iurt", "amazon-2018"),
            tried=False,
        ),
        Kind("Amazon 2018, markup in titles", markup, tried=False),
        Kind(
            "Amazon 2023, CSV, metadata as JSONL",
            amazon_csv(lambda folder: meta(folder, "amazon-2023")),
            tried=False,
        ),
        Kind("Amazon 2023, CSV, metadata as CSV", amazon_csv(meta_csv), tried=False),
        Kind("Amazon 2023, CSV, Parquet", amazon_csv(meta_parquet), tried=False),
        Kind("MIND, clicks before", clicks_before, (CLICKED, TITLES), tried=False),
        Kind(
            "Goodreads, rating 0",
            unrated_books,
            ([("7", "10", None, 400.0)], TITLES),
            tried=False,
        ),
        Kind(
            "Goodreads, `goodreads_interactions.csv`",
            goodreads_csv,
            line=r"its book_id are not those of the titles.*: give the interactions as",
            tried=False,
        ),
        Kind("CSV of your own", own()),
        Kind("CSV, line breaks inside quotes", broken_lines),
        Kind("CSV with semicolons", own(";")),
        Kind("CSV with tabs", own("\t")),
        Kind("CSV, UTF-16 with a mark", own(written="utf-16")),
        Kind(
            "CSV, Latin-1, `--encoding latin-1`",
            own(written="latin-1", encoding="latin-1"),
        ),
        Kind(
            "CSV, Latin-1",
            own(written="latin-1"),
            line=r"a\.csv:2: byte 0xe9 is not UTF-8: name the .* --encoding latin-1",
        ),
        Kind("CSV without a header, columns by number", own(head=(), columns=NUMBERS)),
        Kind(
            "CSV without a header",
            own(head=()),
            line=r"has no header line: .* its 5 columns .* --user-column 1 --item-c",
        ),
        Kind(
            "Interactions without times",
            without_times(),
            line=r"no column 'timestamp'.*--time-column, .*--order file .*--order ran",
        ),
        Kind("The same, `--order file`", without_times("file"), placed(range(5))),
        Kind("JSON of your own, inside an object", document),
    ),
)
