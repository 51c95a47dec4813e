use super::*;

fn hash(bytes: &[u8]) -> String {
    hash_of(&[bytes])
}

/// 2015-08-30T12:36:00Z, when the published examples were signed.
const NOW: u64 = 1_440_938_160;

fn signer(service: &str, region: &str, token: Option<&str>) -> Signer {
    let secret = |text: &str| Secret::from(text.as_bytes().to_vec());
    Signer::new(
        AwsKeys {
            id: "AKIDEXAMPLE".to_owned(),
            secret: secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            token: token.map(secret),
        },
        Scope {
            region: region.to_owned(),
            service: service.to_owned(),
        },
    )
}

/// The names that are signed, and the signature.
fn signed(signer: &Signer, request: &str, fields: &[(&str, &str)], content: &str) -> String {
    let (method, target) = request.split_once(' ').unwrap();
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    let parts = SignedParts {
        method: method.as_bytes(),
        target: target.as_bytes(),
        fields: &fields,
        content,
    };
    let authorization = signer.sign(parts, NOW).authorization;
    let (_, shown) = authorization.split_once("SignedHeaders=").unwrap();
    shown.replace(", Signature=", " ")
}

/// Requests of AWS's own test suite for version 4, by what they are about. The host is
/// example.amazonaws.com, the region us-east-1, the service `service`.
#[test]
fn signatures_are_those_of_the_published_suite() {
    const UNRESERVED: &str = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let unreserved_path = format!("GET /{UNRESERVED}");
    let unreserved_query = format!("GET /?{UNRESERVED}={UNRESERVED}");
    let vanilla = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    type Fields = &'static [(&'static str, &'static str)];
    let cases: [(&str, Fields, &str); 21] = [
        ("GET /", &[], vanilla),
        (
            "POST /",
            &[],
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        ("GET /example1/example2/../..", &[], vanilla),
        ("GET /./", &[], vanilla),
        (
            "GET /./example",
            &[],
            "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
        ),
        (
            "GET //example//",
            &[],
            "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
        ),
        (
            "GET /example space/",
            &[],
            "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
        ),
        (
            &unreserved_path,
            &[],
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        ),
        (
            "GET /ሴ",
            &[],
            "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
        ),
        (
            "GET /?Param1=value1",
            &[],
            "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
        ),
        (
            "GET /?Param2=value2&Param1=value1",
            &[],
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "GET /?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
            &[],
            "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
        ),
        (
            "GET /?ሴ=bar",
            &[],
            "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
        ),
        (
            &unreserved_query,
            &[],
            "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        ),
        (
            "GET /",
            &[("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")],
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (
            "GET /",
            &[("My-Header1", "value1   value2 \t    value3")],
            "cfd34249e4b1c8d6b91ef74165d41a32e5fab3306300901bb65a51a73575eefd",
        ),
        (
            "GET /",
            &[
                ("My-Header1", "value2"),
                ("My-Header1", "value2"),
                ("My-Header1", "value1"),
            ],
            "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        ),
        (
            "GET /",
            &[
                ("My-Header1", "value4"),
                ("My-Header1", "value1"),
                ("My-Header1", "value3"),
                ("My-Header1", "value2"),
            ],
            "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
        ),
        (
            "POST /",
            &[("My-Header1", "value1")],
            "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        ),
        (
            "POST /",
            &[("My-Header1", "VALUE1")],
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        ),
        (
            "POST /?Param1=value1",
            &[],
            "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
        ),
    ];
    let signer = signer("service", "us-east-1", None);
    for (request, fields, expected) in cases {
        let host = [("Host", "example.amazonaws.com")];
        let fields = [&host, fields].concat();
        let shown = signed(&signer, request, &fields, &hash(b""));
        assert_eq!(
            shown.split_once(' ').unwrap().1,
            expected,
            "{request} {fields:?}"
        );
    }
}

/// The same suite: a body, and the token of temporary keys.
#[test]
fn bodies_and_tokens_are_signed() {
    let body = hash(b"Param1=value1");
    let fields = [
        (
            "Content-Type",
            "application/x-www-form-urlencoded; charset=utf-8",
        ),
        ("Host", "example.amazonaws.com"),
        ("Content-Length", "13"),
        ("X-Amz-Content-Sha256", &body),
    ];
    let plain = signer("service", "us-east-1", None);
    assert_eq!(
        signed(&plain, "POST /", &fields, &body),
        "content-length;content-type;host;x-amz-content-sha256;x-amz-date \
         328d1b9eaadca9f5818ef05e8392801e091653bafec24fcab71e7344e7f51422"
    );
    let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
    let temporary = signer("service", "us-east-1", Some(token));
    let host = [("Host", "example.amazonaws.com")];
    assert_eq!(
        signed(&temporary, "GET /", &host, &hash(b"")),
        "host;x-amz-date;x-amz-security-token \
         07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"
    );
}

/// What the suite has no examples of, as botocore 1.43 signs it.
#[test]
fn services_differ_as_they_do_for_botocore() {
    let empty = hash(b"");
    let s3 = signer("s3", "eu-west-1", Some("TOKEN+/="));
    let path = "GET /a//b/../c%20d/%C3%BC%2B~?list-type=2&prefix=a%2Fb&acl";
    let host = ("host", "bucket.s3.eu-west-1.amazonaws.com");
    let expected = "host;x-amz-content-sha256;x-amz-date;x-amz-security-token \
                    7e7664a0e0673744ded2a9bc28302cd3d28e6710b9d0b81ce72037924dcb314f";
    assert_eq!(
        signed(&s3, path, &[host, (CONTENT_HASH_FIELD, &empty)], &empty),
        expected
    );
    let s3 = signer("s3", "eu-west-1", None);
    let fields = [
        ("Content-MD5", "x"),
        ("Content-Type", "text/plain"),
        host,
        (CONTENT_HASH_FIELD, UNSIGNED),
    ];
    assert_eq!(
        signed(&s3, "PUT /key", &fields, UNSIGNED),
        "content-md5;content-type;host;x-amz-content-sha256;x-amz-date \
         1d0270e6a489033f6783635eabe44a1861e997a22002ebc596deb878aa7a2d18"
    );
    let api = signer("execute-api", "eu-west-1", None);
    let path = "GET /stage//a%20b/./c%2Fd/../e?b=2&a=~&a=%2B&A=1&c";
    assert_eq!(
        signed(&api, path, &[("host", "api.example")], &empty),
        "host;x-amz-date 3296c82a58e95de120d05ce723689fb704e513c696321083f9926da8962e4474"
    );
    let dynamodb = signer("dynamodb", "eu-west-1", None);
    let fields = [
        ("content-type", "application/x-amz-json-1.0"),
        ("host", "dynamodb.eu-west-1.amazonaws.com"),
        ("x-amz-target", "DynamoDB_20120810.ListTables"),
    ];
    assert_eq!(
        signed(&dynamodb, "POST /", &fields, &hash(b"{}")),
        "content-type;host;x-amz-date;x-amz-target \
         24451ce21ff1f8febe12cd4af9698f9cd996f8d204374f5da30c312f1bd059f5"
    );
}

#[test]
fn what_is_sent_in_another_form_means_the_same() {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let s3 = Scope {
        region: String::new(),
        service: "s3".to_owned(),
    };
    let other = Scope {
        region: String::new(),
        service: "sqs".to_owned(),
    };
    for (path, at_s3, elsewhere) in [
        ("", "", "/"),
        ("/", "/", "/"),
        ("/a%7eb", "/a~b", "/a%257eb"),
        ("/a+b%2b", "/a%2Bb%2B", "/a%2Bb%252b"),
        ("/../../a/", "/../../a/", "/a/"),
        ("/100%", "/100%25", "/100%25"),
        ("/%zz%4", "/%25zz%254", "/%25zz%254"),
    ] {
        assert_eq!(text(canonical_path(path.as_bytes(), &s3)), at_s3, "{path}");
        assert_eq!(
            text(canonical_path(path.as_bytes(), &other)),
            elsewhere,
            "{path}"
        );
    }
    for (query, canonical) in [
        ("", ""),
        ("&&", ""),
        ("a", "a="),
        ("b=1&a=2&a=1", "a=1&a=2&b=1"),
        ("a=b+c%20d", "a=b%20c%20d"),
        ("a=b=c", "a=b%3Dc"),
        ("=x", "=x"),
        ("q=a:b/c", "q=a%3Ab%2Fc"),
    ] {
        assert_eq!(
            text(canonical_query(query.as_bytes())),
            canonical,
            "{query}"
        );
    }
}

#[test]
fn a_key_holds_for_a_day() {
    let signer = signer("service", "us-east-1", None);
    let first = signer.key_of(16_677);
    assert!(Arc::ptr_eq(&first, &signer.key_of(16_677)));
    assert!(!Arc::ptr_eq(&first, &signer.key_of(16_678)));
    let parts = SignedParts {
        method: b"GET",
        target: b"/",
        fields: &[],
        content: "",
    };
    let last = signer.sign(parts, 86_399).authorization;
    let next = signer.sign(parts, 86_400).authorization;
    assert!(
        last.contains("AKIDEXAMPLE/19700101/us-east-1/service/aws4_request"),
        "{last}"
    );
    assert!(
        next.contains("AKIDEXAMPLE/19700102/us-east-1/service/aws4_request"),
        "{next}"
    );
}

#[test]
fn no_text_shows_a_key() {
    let shown = format!("{:?}", signer("s3", "eu-west-1", Some("TOKEN")));
    assert!(
        !shown.contains("wJalr") && !shown.contains("TOKEN"),
        "{shown}"
    );
}
