# Programs that use AWS through a proxy, with keys that are worth nothing; and who makes
# users and roles for them.
import io, json, sys, urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

REGION = "eu-west-1"
ACCOUNT = "123456789012"
EVERYTHING = json.dumps({
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:*", "sqs:*", "dynamodb:*"], "Resource": "*"}],
})
KEYS = [
    "plain", "with blanks in it", "a+b", "a%2Fb", "a%20b", "über/straße~", "日本/🦀", "a//b",
    "trailing/", "q?x=1&y=2", "(all)!*'", "=;,:@$&", "#1", "a/..b/c", "back\\slash", '"quoted"',
]


def client(service, **more):
    return boto3.client(service, region_name=REGION, **more)


def prepare(url):
    """A user with keys, and a role."""
    iam = client("iam", endpoint_url=url, aws_access_key_id="admin", aws_secret_access_key="admin")
    iam.create_user(UserName="orders")
    iam.put_user_policy(UserName="orders", PolicyName="all", PolicyDocument=EVERYTHING)
    keys = iam.create_access_key(UserName="orders")["AccessKey"]
    role = iam.create_role(RoleName="app", AssumeRolePolicyDocument=EVERYTHING)["Role"]
    iam.put_role_policy(RoleName="app", PolicyName="all", PolicyDocument=EVERYTHING)
    return {"id": keys["AccessKeyId"], "secret": keys["SecretAccessKey"], "role": role["Arn"]}


def check_from_now_on(url):
    """moto lets nobody in without a right signature; before, it does not look at any."""
    plain = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{url}/moto-api/reset-auth", data=b"0", headers=plain)
    urllib.request.urlopen(request).read()


def services(listen, style="path"):
    """S3, SQS and DynamoDB for a program that knows the address of a proxy, and no keys."""
    config = Config(
        proxies={"http": f"http://{listen}"}, s3={"addressing_style": style},
        retries={"total_max_attempts": 1},
    )
    return [
        client(
            service, endpoint_url=f"http://{service}.{REGION}.amazonaws.com", config=config,
            aws_access_key_id="AKIAWORTHLESS", aws_secret_access_key="worthless",
        )
        for service in ["s3", "sqs", "dynamodb"]
    ]


def use(listen, style):
    s3, sqs, dynamodb = services(listen, style)
    s3.create_bucket(Bucket=style, CreateBucketConfiguration={"LocationConstraint": REGION})
    for key in KEYS:
        body = f"body of {key}".encode()
        s3.put_object(Bucket=style, Key=key, Body=body, Metadata={"team": "shop"})
        assert s3.get_object(Bucket=style, Key=key)["Body"].read() == body, key
    listed = s3.list_objects_v2(Bucket=style)
    assert sorted(it["Key"] for it in listed["Contents"]) == sorted(KEYS), listed
    some = s3.list_objects_v2(Bucket=style, Prefix="a/", Delimiter="/")
    assert some["KeyCount"] > 0, some
    long = bytes(range(256)) * 4_000
    s3.put_object(Bucket=style, Key="long", Body=io.BytesIO(long))
    assert s3.get_object(Bucket=style, Key="long")["Body"].read() == long
    tail = s3.get_object(Bucket=style, Key="long", Range="bytes=-3")
    assert tail["Body"].read() == long[-3:]
    wanted = {"Objects": [{"Key": key} for key in KEYS]}
    assert len(s3.delete_objects(Bucket=style, Delete=wanted)["Deleted"]) == len(KEYS)

    queue = sqs.create_queue(QueueName=style)["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody="grüße & <more>")
    got = sqs.receive_message(QueueUrl=queue)["Messages"]
    assert [it["Body"] for it in got] == ["grüße & <more>"]

    dynamodb.create_table(
        TableName=style, BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )
    item = {"id": {"S": "grüße"}, "count": {"N": "1"}}
    dynamodb.put_item(TableName=style, Item=item)
    assert dynamodb.get_item(TableName=style, Key={"id": item["id"]})["Item"] == item


def judge(listen, bucket):
    """What moto itself says; it forgets how a path was written, so that is plain here."""
    s3, sqs, dynamodb = services(listen)
    queue = f"http://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{bucket}"
    for call in [
        lambda: s3.put_object(Bucket=bucket, Key="a/plain one", Body=b"body"),
        lambda: sqs.send_message(QueueUrl=queue, MessageBody="x"),
        lambda: dynamodb.get_item(TableName=bucket, Key={"id": {"S": "grüße"}}),
    ]:
        try:
            call()
            yield "ok"
        except ClientError as error:
            yield error.response["Error"]["Code"]


match sys.argv[1:]:
    case ["prepare", url]:
        print(json.dumps(prepare(url)))
    case ["use", listen, style]:
        use(listen, style)
    case ["judge", listen, style, url]:
        check_from_now_on(url)
        print(*judge(listen, style))
