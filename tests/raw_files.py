"""The same interactions and titles, written in every raw format."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

# user, item, rating, seconds: not in the order of time, with a tie.
RATINGS = [
    ("7", "10", 5.0, 400.0),
    ("8", "10", 2.0, 100.0),
    ("7", "11", 3.0, 100.0),
    ("8", "12", 4.0, 300.0),
    ("7", "12", 1.0, 300.0),
]
#: Formats whose interactions have no ratings.
UNRATED = ("steam", "mind")
TITLES = {"10": "Amélie", "11": "Crouching Tiger & Dragon, 2000", "12": 'The "Thing"'}


def write(name: str, folder: Path, ratings=RATINGS, titles=TITLES):
    """The arguments of `find_raw_files` for files in a format: input and metadata."""
    folder.mkdir(exist_ok=True)
    return WRITERS[name](folder, ratings, titles)


def lines(path: Path, rows, encoding="utf-8") -> Path:
    text = "".join(f"{row}\n" for row in rows)
    path.write_bytes(text.encode(encoding))
    return path


def json_lines(path: Path, records) -> Path:
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(
        gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode()
    )
    return path


def separated(folder, ratings, titles, names, between):
    """MovieLens files without headers, in Latin-1; times are whole seconds."""
    rows = [between[0].join([u, i, f"{r:g}", f"{t:g}"]) for u, i, r, t in ratings]
    lines(folder / names[0], rows, "latin-1")
    named = [between[1].join([item, title, "x"]) for item, title in titles.items()]
    lines(folder / names[1], named, "latin-1")
    return folder, None


def quoted(title):
    return '"' + title.replace('"', '""') + '"'


def movielens_csv(folder, ratings, titles):
    rows = [f"{u},{i},{r},{t:g}" for u, i, r, t in ratings]
    lines(folder / "ratings.csv", ["userId,movieId,rating,timestamp", *rows])
    named = [f"{item},{quoted(title)},Drama" for item, title in titles.items()]
    lines(folder / "movies.csv", ["movieId,title,genres", *named])
    return folder / "ratings.csv", None


def reviews(ratings, extra):
    for user, item, rating, time in ratings:
        yield {
            "reviewerID": user,
            "asin": item,
            "overall": rating,
            "unixReviewTime": int(time),
            "reviewText": 'It\'s "good".\nVery.',
        } | extra


def escaped(titles):
    """As Amazon writes them: with entities, and white space anywhere."""
    return {item: f"  {t.replace('&', '&amp;  ')}" for item, t in titles.items()}


def amazon_2014(folder, ratings, titles):
    path = json_lines(folder / "r.json.gz", reviews(ratings, {"helpful": [0, 0]}))
    # Single quotes, and an escape that JSON does not have.
    meta = [
        repr({"asin": item, "title": title, "price": 1.5, "imUrl": "\x7f"})
        for item, title in escaped(titles).items()
    ]
    return path, lines(folder / "meta.json", [*meta, "{'asin': '99'}"])


def amazon_2018(folder, ratings, titles):
    path = json_lines(folder / "r.json", reviews(ratings, {"verified": True}))
    meta = [{"asin": i, "title": t, "tech": {}} for i, t in escaped(titles).items()]
    return path, json_lines(folder / "meta.json.gz", meta)


def amazon_2023(folder, ratings, titles):
    records = [
        {"user_id": u, "parent_asin": i, "asin": "-", "rating": r, "timestamp": t * 1e3}
        for u, i, r, t in ratings
    ]
    meta = [{"parent_asin": i, "title": t} for i, t in escaped(titles).items()]
    path = json_lines(folder / "r.jsonl.gz", records)
    return path, json_lines(folder / "meta.jsonl.gz", meta)


def recbole(folder, ratings, titles):
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    rows = [f"{u}\t{i}\t{r}\t{t}" for u, i, r, t in ratings]
    lines(folder / "a.inter", [head, *rows])
    named = [f"{item}\t{title}\t1999" for item, title in titles.items()]
    lines(
        folder / "a.item", ["item_id:token\tmovie_title:token_seq\tyear:float", *named]
    )
    return folder, None


def dated(seconds, form):
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def python_lines(path, records):
    """As Python 2 printed dictionaries: with u before each text."""
    return lines(path, [repr(r).replace("'user", "u'user") for r in records])


def steam(folder, ratings, titles):
    """Real dates are days; these have seconds, so that all formats say the same."""
    reviews = [
        {"username": u, "product_id": i, "hours": 1.5, "date": dated(t, "%F %T")}
        for u, i, _, t in ratings
    ]
    games = [
        {"id": i, "app_name": title, "title": title} for i, title in titles.items()
    ]
    path = python_lines(folder / "steam_reviews.json", reviews)
    return path, python_lines(folder / "steam_games.json", [*games, {"id": "99"}])


def goodreads(folder, ratings, titles):
    records = [
        {
            "user_id": u,
            "book_id": i,
            "is_read": True,
            "rating": int(r),
            "date_added": dated(t, "%a %b %d %H:%M:%S +0000 %Y"),
        }
        for u, i, r, t in ratings
    ]
    books = [{"book_id": i, "title": t, "similar_books": []} for i, t in titles.items()]
    path = json_lines(folder / "goodreads_interactions_poetry.json.gz", records)
    return path, json_lines(folder / "goodreads_books_poetry.json.gz", books)


def mind(folder, ratings, titles):
    rows = [
        f"{n}\t{u}\t{dated(t, '%m/%d/%Y %I:%M:%S %p')}\t\t99-0 {i}-1"
        for n, (u, i, _, t) in enumerate(ratings)
    ]
    lines(folder / "behaviors.tsv", rows)
    news = [
        f"{i}\tnews\tworld\t{t}\tabout\thttps://x\t[]\t[]" for i, t in titles.items()
    ]
    lines(folder / "news.tsv", news)
    return folder, None


def kuairec(folder, ratings, titles):
    head = "user_id,video_id,play_duration,video_duration,time,date,timestamp,"
    rows = [
        f"{u},{i},9,9,{dated(t, '%F %T')},19700101,{t},{r}" for u, i, r, t in ratings
    ]
    lines(folder / "big_matrix.csv", [head + "watch_ratio", *rows])
    named = [f"{i},UNKNOWN,{quoted(t)},[],-124" for i, t in titles.items()]
    head = "video_id,manual_cover_text,caption,topic_tag,first_level_category_id"
    lines(folder / "kuairec_caption_category.csv", [head, *named])
    return folder, None


def yelp(folder, ratings, titles):
    records = [
        {
            "review_id": "r",
            "user_id": u,
            "business_id": i,
            "stars": r,
            "date": dated(t, "%F %T"),
            "text": "Good.\n",
        }
        for u, i, r, t in ratings
    ]
    places = [{"business_id": i, "name": t, "city": "X"} for i, t in titles.items()]
    path = json_lines(folder / "yelp_academic_dataset_review.json", records)
    return path, json_lines(folder / "yelp_academic_dataset_business.json", places)


def plain_parquet(folder, ratings, titles):
    names = ("user_id", "item_id", "rating", "timestamp")
    columns = dict(zip(names, map(list, zip(*ratings, strict=True)), strict=True))
    pl.DataFrame(columns).write_parquet(folder / "a.parquet")
    named = {"item_id": list(titles), "title": list(titles.values())}
    pl.DataFrame(named).write_ipc(folder / "items.arrow")
    return folder / "a.parquet", folder / "items.arrow"


def plain_csv(folder, ratings, titles):
    rows = [
        f"{t},{u},{i},{quoted(titles[i]) if i in titles else ''},{r}"
        for u, i, r, t in ratings
    ]
    head = "timestamp,user_id,item_id,title,rating"
    return lines(folder / "a.csv", [head, *rows]), None


def plain_jsonl(folder, ratings, titles):
    records = [
        {"user_id": u, "item_id": int(i), "rating": r, "timestamp": t}
        for u, i, r, t in ratings
    ]
    named = [{"item_id": i, "title": t} for i, t in titles.items()]
    path = json_lines(folder / "a.jsonl", records)
    return path, json_lines(folder / "items.jsonl", named)


WRITERS = {
    "movielens-100k": lambda *args: separated(*args, ("u.data", "u.item"), "\t|"),
    "movielens-1m": lambda *args: separated(
        *args, ("ratings.dat", "movies.dat"), ("::", "::")
    ),
    "movielens-csv": movielens_csv,
    "amazon-2014": amazon_2014,
    "amazon-2018": amazon_2018,
    "amazon-2023": amazon_2023,
    "steam": steam,
    "goodreads": goodreads,
    "mind": mind,
    "kuairec": kuairec,
    "yelp": yelp,
    "recbole": recbole,
    "csv": plain_csv,
    "jsonl": plain_jsonl,
    "parquet": plain_parquet,
}
