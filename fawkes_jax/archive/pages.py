"""Listings of buckets, a page at a time.

fsspec's own listings hold all names at once.
"""

from typing import Any

Page = tuple[list[tuple[str, int | None]], str | None]


def _s3_page(fs: Any, bucket: str, prefix: str, after: str | None) -> Page:
  """Up to a thousand keys of S3 after one, and the last if there are more."""
  more = {} if after is None else {"StartAfter": after}
  page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
  found: list[tuple[str, int | None]]
  found = [(e["Key"], e["Size"]) for e in page.get("Contents", ())]
  return found, found[-1][0] if page.get("IsTruncated") and found else None


def _gcs_page(fs: Any, bucket: str, prefix: str, after: str | None) -> Page:
  """Up to a thousand keys of Google Cloud Storage, and the next page."""
  page = fs.call(
    "GET", "b/{}/o", bucket, prefix=prefix, pageToken=after, json_out=True
  )
  found: list[tuple[str, int | None]]
  found = [(e["name"], int(e["size"])) for e in page.get("items", ())]
  return found, page.get("nextPageToken")


PAGES = {"s3": _s3_page, "gs": _gcs_page}
"""By kind of store: of a file system, a bucket, a prefix and where to go on."""
