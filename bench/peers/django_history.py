"""django-simple-history, as `bench -- history --peer` asks for it: microseconds of a save of one row with its history, durable,
and milliseconds of a bulk update with history. Needs: pip install django django-simple-history 'psycopg[binary]'."""
import json
import os
import random
import statistics
import time
import uuid

import django
from django.conf import settings

ROUNDS, UPDATES, BULK = (int(os.environ[f"BENCH_{name}"]) for name in ("ROUNDS", "UPDATES", "BULK"))

settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "simple_history"],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["PGDATABASE"], "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
        "USER": os.environ["PGUSER"], "PASSWORD": os.environ["PGPASSWORD"], "CONN_MAX_AGE": None,
    }},
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.utils import timezone  # noqa: E402
from simple_history.models import HistoricalRecords  # noqa: E402
from simple_history.utils import bulk_update_with_history  # noqa: E402


class Device(models.Model):
    """The columns of our table."""
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=200)
    client_id = models.CharField(max_length=64, unique=True)
    pin_hash = models.CharField(max_length=200)
    enabled = models.BooleanField(default=True)
    firmware_version = models.CharField(max_length=100, null=True)
    provisioned_at = models.DateTimeField(null=True)
    last_seen_at = models.DateTimeField(null=True)
    failed_pin_attempts = models.IntegerField(default=0)
    locked_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(auto_now=True)
    history = HistoricalRecords(excluded_fields=["pin_hash"])

    class Meta:
        app_label = "simple_history"


call_command("migrate", verbosity=0)
with connection.schema_editor() as editor:
    editor.create_model(Device)
    editor.create_model(Device.history.model)
Device.objects.bulk_create(
    [Device(id=id, name="Device", client_id=str(id), pin_hash="none") for id in (uuid.uuid4() for _ in range(BULK))]
)
devices = list(Device.objects.order_by("id")[:BULK])


def save(count):
    began = time.perf_counter()
    for _ in range(count):
        device = random.choice(devices)
        device.name = f"Device {random.getrandbits(32)}"
        with transaction.atomic():
            device.save()
    return (time.perf_counter() - began) * 1e6 / count


def bulk(round):
    for device in devices:
        device.name = f"Round {round}"
    began = time.perf_counter()
    bulk_update_with_history(devices, Device, ["name"], batch_size=1000)
    return (time.perf_counter() - began) * 1e3


rows, bulks = [], []
for round in range(ROUNDS):
    save(50)
    rows.append(save(UPDATES))
    bulks.append(bulk(round))
print(json.dumps({
    "name": "simple_history", "row_us": statistics.median(rows), "bulk_ms": statistics.median(bulks),
}))
